package server

import (
	"bytes"
	"context"
	"fmt"

	pb "mip.example/peer/gen/mip/v1"
)

const maxSkipped = 1000

// RollbackCube makes one commit after which memories and settings are what they were at a revision.
func (s *Server) RollbackCube(ctx context.Context, r *pb.RollbackCubeRequest) (*pb.RollbackCubeResponse, error) {
	return mutate(ctx, s, "RollbackCube", r.Name, r, func() (*pb.RollbackCubeResponse, error) {
		c, err := s.liveCube(r.Name)
		if err != nil {
			return nil, err
		}
		if r.ToRevision > c.revision() {
			return nil, noRevision(c, r.ToRevision)
		}
		if err := c.expect(r.ExpectedRevision); err != nil {
			return nil, err
		}
		d := begin(c)
		out := &pb.RollbackCubeResponse{}
		for _, m := range c.order {
			if skipped := c.rollBack(d, m, r.ToRevision); skipped != nil && len(out.SkippedPurges) < maxSkipped {
				out.SkippedPurges = append(out.SkippedPurges, skipped)
			}
		}
		then, now := c.settingsAt(r.ToRevision), c.now()
		if !bytes.Equal(then.sealed.commitment, now.sealed.commitment) {
			d.putSettings(pb.ChangeKind_CHANGE_KIND_CUBE_ROLLED_BACK, &settings{state: active, sealed: then.sealed, content: then.content})
		}
		made := d.finish(r, causeOr(r.Cause, fmt.Sprintf("rollback to revision %d", r.ToRevision)))
		out.Cube, out.Commit = s.cubeView(c), c.commitView(made)
		return out, nil
	})
}

// rollBack brings one memory to what it was at a revision, where it is something else now. A memory that was purged since
// stays purged and is named.
func (c *cube) rollBack(d *draft, m *memory, revision int64) *pb.SkippedPurge {
	then, now := m.at(revision), m.now()
	if m.purged() {
		if then != nil && then.state != purged {
			return &pb.SkippedPurge{Name: c.name() + "/memories/" + m.id, PurgeRevision: now.revision}
		}
		return nil
	}
	next := now.moved(deleted) // What was added since.
	if then != nil {
		next = then.moved(then.state)
		next.mergedInto = then.mergedInto
		next.sensitivity = max(then.sensitivity, now.sensitivity)
	} else if now.state == deleted {
		return nil
	}
	if !next.same(now) {
		d.put(pb.ChangeKind_CHANGE_KIND_MEMORY_ROLLED_BACK, m, next)
	}
	return nil
}

// same says whether two versions of a memory have the same content, vectors, state and what stands around.
func (v *version) same(other *version) bool {
	return v.state == other.state && v.mergedInto == other.mergedInto && v.sensitivity == other.sensitivity &&
		v.owner == other.owner && bytes.Equal(v.commitment(), other.commitment()) && sameVectors(v.vectors, other.vectors)
}
