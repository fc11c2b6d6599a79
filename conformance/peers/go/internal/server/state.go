package server

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sort"
	"strconv"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/digest"
	"mip.example/peer/internal/mip"
	"mip.example/peer/internal/words"
)

// States, by the names that the specification's table has.
const (
	active   = pb.MemoryState_MEMORY_STATE_ACTIVE
	merged   = pb.MemoryState_MEMORY_STATE_MERGED
	archived = pb.MemoryState_MEMORY_STATE_ARCHIVED
	deleted  = pb.MemoryState_MEMORY_STATE_DELETED
	purged   = pb.MemoryState_MEMORY_STATE_PURGED
)

// sealed is content as it was serialized once. It never changes; versions, forks and rollbacks share it.
type sealed struct {
	payload    []byte
	salt       []byte
	commitment []byte
}

func seal(message proto.Message) sealed {
	payload, salt := digest.Serialize(message), digest.NewSalt()
	return sealed{payload, salt, digest.Commitment(salt, payload)}
}

// content is the sealed content of a memory, parsed once; the words are counted when the first search needs them.
type content struct {
	sealed
	memory   *pb.Memory
	counting sync.Once
	document *words.Document
}

// version is what one commit made of a memory; it is never changed, but purging drops its content.
type version struct {
	revision    int64
	time        *timestamppb.Timestamp
	state       pb.MemoryState
	content     *content
	mergedInto  string
	sensitivity pb.Sensitivity
	owner       string
	vectors     []*pb.Vector
}

func (v *version) commitment() []byte {
	if v == nil || v.content == nil {
		return nil
	}
	return v.content.commitment
}

// memory is the history of one memory. Its place is that of its addition to the cube.
type memory struct {
	id       string
	uid      string
	place    int
	created  *timestamppb.Timestamp
	versions []*version
}

func (m *memory) now() *version { return m.versions[len(m.versions)-1] }

func (m *memory) purged() bool { return m.now().state == purged }

// at is the version that a revision of the cube sees, nil where the memory did not exist yet.
func (m *memory) at(revision int64) *version {
	after := sort.Search(len(m.versions), func(i int) bool { return m.versions[i].revision > revision })
	if after == 0 {
		return nil
	}
	return m.versions[after-1]
}

// settings is a version of a cube's settings and state.
type settings struct {
	revision int64
	state    pb.MemoryState
	sealed   *sealed
	content  *pb.CubeContent
}

// session is a conversation. ended is the revision that ended it, 0 while it goes on.
type session struct {
	id      string
	uid     string
	place   int
	owner   string
	created *commit
	ended   *commit
	sealed  *sealed
	content *pb.SessionContent
}

// commit is an entry of the log; the bytes are what counts, the header is for reading.
type commit struct {
	header  *pb.CommitHeader
	sealed  []byte
	digest  []byte
	changes [][]byte
}

// cube is a cube with its log and what the log leaves.
type cube struct {
	id       string
	uid      string
	owner    string
	place    int
	settings []*settings
	commits  []*commit
	memories map[string]*memory
	order    []*memory
	sessions map[string]*session
	talks    []*session
	source   *cube
	moved    chan struct{}
}

func (c *cube) name() string { return "cubes/" + c.id }

func (c *cube) revision() int64 { return int64(len(c.commits)) }

func (c *cube) head() *commit { return c.commits[len(c.commits)-1] }

func (c *cube) now() *settings { return c.settings[len(c.settings)-1] }

func (c *cube) settingsAt(revision int64) *settings {
	after := sort.Search(len(c.settings), func(i int) bool { return c.settings[i].revision > revision })
	return c.settings[after-1]
}

// live refuses calls on a cube that is deleted or purged.
func (c *cube) live() error {
	switch c.now().state {
	case deleted:
		return mip.Refuse(pb.ErrorReason_ERROR_REASON_CUBE_DELETED, "%s is deleted", c.name())
	case purged:
		return mip.Refuse(pb.ErrorReason_ERROR_REASON_CUBE_PURGED, "%s is purged", c.name())
	}
	return nil
}

// asOf resolves the revision that a read asks for: 0 is the head. That the cube was deleted then, and is not now, does not
// matter.
func (c *cube) asOf(revision int64) (int64, error) {
	if err := c.live(); err != nil {
		return 0, err
	}
	if revision == 0 {
		return c.revision(), nil
	}
	if revision > c.revision() {
		return 0, noRevision(c, revision)
	}
	return revision, nil
}

func noRevision(c *cube, revision int64) error {
	return mip.Refuse(pb.ErrorReason_ERROR_REASON_REVISION_NOT_FOUND, "%s has no revision %d", c.name(), revision)
}

// cube finds a cube in any state.
func (s *Server) cube(name string) (*cube, error) {
	if c := s.cubes[mip.LastID(name)]; c != nil {
		return c, nil
	}
	return nil, mip.Refuse(pb.ErrorReason_ERROR_REASON_CUBE_NOT_FOUND, "%s does not exist", name)
}

// liveCube finds a cube that is neither deleted nor purged.
func (s *Server) liveCube(name string) (*cube, error) {
	c, err := s.cube(name)
	if err != nil {
		return nil, err
	}
	return c, c.live()
}

func (c *cube) find(name string) (*memory, error) {
	if m := c.memories[mip.LastID(name)]; m != nil {
		return m, nil
	}
	return nil, noMemory(name)
}

func noMemory(name string) error {
	return mip.Refuse(pb.ErrorReason_ERROR_REASON_MEMORY_NOT_FOUND, "%s does not exist", name).With("name", name)
}

// checkNames checks names of memories in a request: all of the cube, none of them twice.
func (c *cube) checkNames(names []string, path string) error {
	seen := map[string]bool{}
	for i, name := range names {
		if mip.CubeOf(name) != c.name() {
			return otherCube(fmt.Sprintf("%s[%d]", path, i), c)
		}
		if seen[name] {
			return namedTwice(fmt.Sprintf("%s[%d]", path, i))
		}
		seen[name] = true
	}
	return nil
}

// findAll finds memories that a mutation names: all of the cube, none of them twice.
func (c *cube) findAll(names []string, path string) ([]*memory, error) {
	if err := c.checkNames(names, path); err != nil {
		return nil, err
	}
	var found []*memory
	for _, name := range names {
		m, err := c.find(name)
		if err != nil {
			return nil, err
		}
		found = append(found, m)
	}
	return found, nil
}

func namedTwice(path string) error {
	return mip.Field(pb.ErrorReason_ERROR_REASON_INVALID_NAME, path, "is named twice")
}

func otherCube(path string, c *cube) error {
	return mip.Field(pb.ErrorReason_ERROR_REASON_INVALID_NAME, path, "is not a name within %s", c.name())
}

// expect checks expected_revision; 0 skips it.
func (c *cube) expect(revision int64) error {
	if revision != 0 && revision != c.revision() {
		return mip.Refuse(pb.ErrorReason_ERROR_REASON_REVISION_MISMATCH, "%s is not at revision %d", c.name(), revision).
			With("current_revision", strconv.FormatInt(c.revision(), 10))
	}
	return nil
}

// etag names a version: the revision that made it tells versions of one item apart.
func (s *Server) etag(uid string, revision int64) string {
	return hex.EncodeToString(s.mac("etag", uid, strconv.FormatInt(revision, 10))[:16])
}

func (s *Server) checkEtag(shown, uid string, revision int64) error {
	if shown != "" && shown != s.etag(uid, revision) {
		return mip.Refuse(pb.ErrorReason_ERROR_REASON_ETAG_MISMATCH, "the etag is not the current one")
	}
	return nil
}

// mac authenticates texts with a key that nobody but this process knows.
func (s *Server) mac(parts ...string) []byte {
	hash := hmac.New(sha256.New, s.key)
	for _, part := range parts {
		fmt.Fprintf(hash, "%d:", len(part))
		hash.Write([]byte(part))
	}
	return hash.Sum(nil)
}
