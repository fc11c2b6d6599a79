package server

import (
	"context"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/filter"
	"mip.example/peer/internal/mip"
)

// UpdateMemory makes a new version of a memory with other fields.
func (s *Server) UpdateMemory(ctx context.Context, r *pb.UpdateMemoryRequest) (*pb.UpdateMemoryResponse, error) {
	if r.Memory.Name == "" {
		return nil, mip.Field(pb.ErrorReason_ERROR_REASON_FIELD_REQUIRED, "memory.name", "must not be empty")
	}
	return mutate(ctx, s, "UpdateMemory", r.Memory.Name, r, func() (*pb.UpdateMemoryResponse, error) {
		c, err := s.liveCube(mip.CubeOf(r.Memory.Name))
		if err != nil {
			return nil, err
		}
		m, err := c.find(r.Memory.Name)
		if err != nil {
			return nil, err
		}
		if err := c.refuseGone(m); err != nil {
			return nil, err
		}
		if err := c.expect(r.ExpectedRevision); err != nil {
			return nil, err
		}
		if err := s.checkEtag(r.Memory.Etag, m.uid, m.now().revision); err != nil {
			return nil, err
		}
		next, err := c.updated(m.now(), r)
		if err != nil {
			return nil, err
		}
		d := begin(c)
		if next != nil {
			d.put(pb.ChangeKind_CHANGE_KIND_MEMORY_UPDATED, m, next)
		}
		made := d.finish(r, causeOr(r.Cause, "update memory"))
		return &pb.UpdateMemoryResponse{Memory: s.view(c, m, m.now()), Commit: c.commitView(made)}, nil
	})
}

// refuseGone refuses a purged or deleted memory, which cannot be changed.
func (c *cube) refuseGone(m *memory) error {
	if err := c.refusePurged(m); err != nil {
		return err
	}
	if m.now().state == deleted {
		return c.invalidTransition(m)
	}
	return nil
}

func (c *cube) invalidTransition(m *memory) error {
	state := mip.Name(m.now().state, "MEMORY_STATE_")
	return mip.Refuse(pb.ErrorReason_ERROR_REASON_INVALID_TRANSITION, "%s/memories/%s is %s, which does not permit it", c.name(), m.id, state).
		With("state", state)
}

// updated is the version that an update makes, nil where nothing changes.
func (c *cube) updated(now *version, r *pb.UpdateMemoryRequest) (*version, error) {
	paths, err := resolveMask(r)
	if err != nil {
		return nil, err
	}
	asked := cloneContent(now.content)
	applyMask(asked, r, paths)
	if err := checkUpdated(asked); err != nil {
		return nil, err
	}
	if asked.Session != now.content.memory.Session {
		if err := c.checkSession(asked.Session, "memory"); err != nil {
			return nil, err
		}
	}
	if err := normalize(asked, "memory"); err != nil {
		return nil, err
	}
	next := &version{state: now.state, content: now.content, mergedInto: now.mergedInto, owner: now.owner, vectors: now.vectors}
	changed := !sameContent(now.content, asked)
	if changed {
		if next.content, err = c.sealContent(asked, "memory"); err != nil {
			return nil, err
		}
	}
	next.sensitivity = now.sensitivity
	switch {
	case named(paths, "sensitivity"):
		next.sensitivity = c.inherit(r.Memory.Sensitivity, asked)
	case changed:
		next.sensitivity = c.inherit(now.sensitivity, asked)
	}
	if named(paths, "owner") && r.Memory.Owner != "" {
		next.owner = r.Memory.Owner
	}
	if textOf(asked) != textOf(now.content.memory) {
		next.vectors = nil // They were of the old text.
	}
	if named(paths, "vectors") {
		if next.vectors, err = c.checkVectors(r.Memory.Vectors, "memory.vectors"); err != nil {
			return nil, err
		}
	}
	if !changed && next.sensitivity == now.sensitivity && next.owner == now.owner && !named(paths, "vectors") {
		return nil, nil
	}
	return next, nil
}

// textOf is what vectors are of: the payload's own text.
func textOf(m *pb.Memory) string { return filter.Words(m) }
