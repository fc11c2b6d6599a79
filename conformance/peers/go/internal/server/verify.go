package server

import (
	"bytes"
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/digest"
	"mip.example/peer/internal/mip"
)

const maxFindings = 1000

// verification replays a log and collects what does not fit.
type verification struct {
	cube  *cube
	out   *pb.VerifyCubeResponse
	items map[string]*pb.Change
}

func (v *verification) find(kind, resource string, revision int64, message string) {
	if len(v.out.Findings) < maxFindings {
		v.out.Findings = append(v.out.Findings, &pb.Finding{Kind: kind, Resource: resource, Revision: revision, Message: message})
	}
}

// VerifyCube recomputes the chain from the sealed bytes, replays it, and compares the outcome with what is stored. There is no
// index beside the record: a search reads the record itself.
func (s *Server) VerifyCube(ctx context.Context, r *pb.VerifyCubeRequest) (*pb.VerifyCubeResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, err := s.cube(r.Name)
	if err != nil {
		return nil, err
	}
	if len(r.ExpectedHeadDigest) > 0 && r.ExpectedRevision == 0 {
		return nil, mip.Field(pb.ErrorReason_ERROR_REASON_CONFLICTING_ARGUMENTS, "expected_head_digest", "needs expected_revision")
	}
	v := &verification{cube: c, items: map[string]*pb.Change{}, out: &pb.VerifyCubeResponse{
		HeadRevision: c.revision(), HeadDigest: c.head().digest, IndexedRevision: c.revision(),
	}}
	if err := v.chain(ctx); err != nil {
		return nil, err
	}
	if err := v.state(ctx); err != nil {
		return nil, err
	}
	if expected := r.ExpectedRevision; expected > c.revision() {
		v.find("head", c.name(), expected, "the log has no such revision")
	} else if expected > 0 && len(r.ExpectedHeadDigest) > 0 && !bytes.Equal(digest.Commit(c.commits[expected-1].sealed), r.ExpectedHeadDigest) {
		v.find("head", c.name(), expected, "the digest is another than the expected one")
	}
	v.out.Valid = len(v.out.Findings) == 0
	return v.out, nil
}

// chain checks every header against the one before and against its changes, and replays the changes.
func (v *verification) chain(ctx context.Context) error {
	var before *pb.CommitHeader
	var parent []byte
	for i, made := range v.cube.commits {
		if err := ctx.Err(); err != nil {
			return err
		}
		revision := int64(i + 1)
		name := commitName(v.cube, revision)
		header := &pb.CommitHeader{}
		sum := digest.Commit(made.sealed)
		if !bytes.Equal(sum, made.digest) || proto.Unmarshal(made.sealed, header) != nil {
			v.find("chain", name, revision, "the header does not have its digest")
		}
		if err := digest.Link(header, before, parent, made.changes); err != nil {
			v.find("chain", name, revision, err.Error())
		}
		if header.CubeUid != v.cube.uid || !proto.Equal(header, made.header) {
			v.find("chain", name, revision, "the header is not what is stored of it")
		}
		for _, data := range made.changes {
			v.replay(data, revision)
		}
		before, parent = header, sum
		v.out.CommitsChecked++
	}
	return nil
}

// replay compares what a change says of before with what the newest earlier change of the item left.
func (v *verification) replay(data []byte, revision int64) {
	change := &pb.Change{}
	if err := proto.Unmarshal(data, change); err != nil {
		v.find("changes", commitName(v.cube, revision), revision, "a change does not parse")
		return
	}
	before := v.items[change.Uid]
	if !bytes.Equal(change.BeforeCommitment, before.GetAfterCommitment()) || change.BeforeState != before.GetAfterState() {
		v.find("changes", change.Name, revision, "what the change found is not what the change before left")
	}
	v.items[change.Uid] = change
	v.out.ChangesChecked++
}

// state compares the outcome of the replay with the stored memories, sessions and settings.
func (v *verification) state(ctx context.Context) error {
	c := v.cube
	for _, m := range c.order {
		if err := ctx.Err(); err != nil {
			return err
		}
		name, now := c.name()+"/memories/"+m.id, m.now()
		left := v.items[m.uid]
		delete(v.items, m.uid)
		into := ""
		if now.mergedInto != "" {
			into = "memories/" + now.mergedInto
		}
		if left.GetAfterState() != now.state || left.GetSensitivity() != now.sensitivity || left.GetOwner() != now.owner || left.GetMergedInto() != into {
			v.find("state", name, now.revision, "state, sensitivity, owner or merged_into is not what the log leaves")
		}
		if !bytes.Equal(left.GetAfterCommitment(), now.commitment()) {
			v.find("content", name, now.revision, "the commitment is not what the log leaves")
		}
		for _, at := range m.versions {
			if at.content != nil && !at.content.intact() {
				v.find("content", name, at.revision, "the content does not have its commitment")
			}
		}
	}
	for _, t := range c.talks {
		v.compare("sessions/"+t.id, t.uid, t.sealed, t.content != nil)
	}
	v.compare("", c.uid, c.now().sealed, c.now().sealed != nil)
	for _, change := range v.items {
		v.find("state", change.Name, 0, "the log names an item that is not stored")
	}
	return nil
}

func (v *verification) compare(name, uid string, stored *sealed, whole bool) {
	left := v.items[uid]
	delete(v.items, uid)
	if stored == nil {
		stored = &sealed{}
	}
	if !bytes.Equal(left.GetAfterCommitment(), stored.commitment) {
		v.find("state", fmt.Sprintf("%s/%s", v.cube.name(), name), 0, "the commitment is not what the log leaves")
	}
	if whole && !stored.intact() {
		v.find("content", fmt.Sprintf("%s/%s", v.cube.name(), name), 0, "the content does not have its commitment")
	}
}

func (s *sealed) intact() bool {
	return bytes.Equal(digest.Commitment(s.salt, s.payload), s.commitment)
}
