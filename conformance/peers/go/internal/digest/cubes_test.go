package digest

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "mip.example/peer/gen/mip/v1"
)

// A state record of a cube: what a server sent of it, byte for byte.
type cube struct {
	Server  string `json:"server"`
	CubeUID string `json:"cube_uid"`
	Head    struct {
		Revision int64  `json:"revision"`
		Digest   string `json:"digest"`
	} `json:"head"`
	Commits []struct {
		Digest  string   `json:"digest"`
		Header  string   `json:"header"`
		Changes []string `json:"changes"`
	} `json:"commits"`
	Contents []struct {
		UID     string `json:"uid"`
		Name    string `json:"name"`
		Payload string `json:"payload"`
		Salt    string `json:"salt"`
	} `json:"contents"`
}

// Cubes that either server wrote are read by this one's functions, with equal digests.
func TestCubesOfBothServers(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join("..", "..", "..", "..", "vectors", "cubes", "*.json"))
	if err != nil || len(paths) < 2 {
		t.Fatalf("%d records: %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) { readCube(t, path) })
	}
}

func readCube(t *testing.T, path string) {
	var record cube
	load(t, filepath.Join("cubes", filepath.Base(path)), &record)
	var before *pb.CommitHeader
	var parent []byte
	commitments, states := map[string][]byte{}, map[string]pb.MemoryState{}
	for _, c := range record.Commits {
		sealed := unhex(t, c.Header)
		equal(t, "commit", Commit(sealed), c.Digest)
		var changes [][]byte
		for _, text := range c.Changes {
			data := unhex(t, text)
			changes = append(changes, data)
			change := new(pb.Change)
			if err := proto.Unmarshal(data, change); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(change.GetBeforeCommitment(), commitments[change.GetUid()]) || change.GetBeforeState() != states[change.GetUid()] {
				t.Errorf("a change of %s does not follow the one before", change.GetName())
			}
			commitments[change.GetUid()], states[change.GetUid()] = change.GetAfterCommitment(), change.GetAfterState()
			equal(t, "change serialized again", Serialize(change), text)
		}
		header := new(pb.CommitHeader)
		if err := proto.Unmarshal(sealed, header); err != nil {
			t.Fatal(err)
		}
		if err := Link(header, before, parent, changes); err != nil {
			t.Errorf("revision %d: %v", header.GetRevision(), err)
		}
		if header.GetCubeUid() != record.CubeUID {
			t.Errorf("revision %d is of the cube %s", header.GetRevision(), header.GetCubeUid())
		}
		before, parent = header, Commit(sealed)
	}
	equal(t, "head", parent, record.Head.Digest)
	if before.GetRevision() != record.Head.Revision {
		t.Errorf("the head is at revision %d, not %d", before.GetRevision(), record.Head.Revision)
	}
	for _, item := range record.Contents {
		payload := unhex(t, item.Payload)
		if got := Commitment(unhex(t, item.Salt), payload); !bytes.Equal(got, commitments[item.UID]) {
			t.Errorf("%s: the commitment is not that of the log", item.Name)
		}
		content := new(pb.MemoryContent)
		if err := proto.Unmarshal(payload, content); err != nil {
			t.Fatal(err)
		}
		equal(t, item.Name+" serialized again", Serialize(content), item.Payload)
		if !strings.HasPrefix(item.Name, "memories/") {
			t.Errorf("%s is no memory", item.Name)
		}
	}
}
