package server

import (
	"context"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/mip"
)

// moved is a memory's version in another state; leaving MERGED forgets what absorbed it.
func (v *version) moved(state pb.MemoryState) *version {
	return &version{state: state, content: v.content, sensitivity: v.sensitivity, owner: v.owner, vectors: v.vectors}
}

// transition puts memories into a state that the table beside MemoryState permits for each of them.
func (d *draft) transition(kind pb.ChangeKind, found []*memory, state pb.MemoryState) error {
	for _, m := range found {
		if err := d.cube.refusePurged(m); err != nil {
			return err
		}
		if !mip.MayTransition(m.now().state, state) {
			return d.cube.invalidTransition(m)
		}
		d.put(kind, m, m.now().moved(state))
	}
	return nil
}

// TransitionMemories moves memories to ACTIVE, ARCHIVED or DELETED.
func (s *Server) TransitionMemories(ctx context.Context, r *pb.TransitionMemoriesRequest) (*pb.TransitionMemoriesResponse, error) {
	return mutate(ctx, s, "TransitionMemories", r.Parent, r, func() (*pb.TransitionMemoriesResponse, error) {
		c, err := s.liveCube(r.Parent)
		if err != nil {
			return nil, err
		}
		found, err := c.findAll(r.Names, "names")
		if err != nil {
			return nil, err
		}
		if r.State != active && r.State != archived && r.State != deleted {
			return nil, mip.Field(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, "state", "must be ACTIVE, ARCHIVED or DELETED")
		}
		if err := c.expect(r.ExpectedRevision); err != nil {
			return nil, err
		}
		d := begin(c)
		if err := d.transition(pb.ChangeKind_CHANGE_KIND_MEMORY_TRANSITIONED, found, r.State); err != nil {
			return nil, err
		}
		made := d.finish(r, causeOr(r.Cause, "transition memories"))
		out := &pb.TransitionMemoriesResponse{Commit: c.commitView(made)}
		for _, m := range found {
			moved := s.view(c, m, m.now())
			moved.Payload, moved.Tags, moved.Labels, moved.AttributesJson, moved.Provenance = nil, nil, nil, "", nil
			out.Memories = append(out.Memories, moved)
		}
		return out, nil
	})
}

// DeleteMemories marks memories deleted.
func (s *Server) DeleteMemories(ctx context.Context, r *pb.DeleteMemoriesRequest) (*pb.DeleteMemoriesResponse, error) {
	return mutate(ctx, s, "DeleteMemories", r.Parent, r, func() (*pb.DeleteMemoriesResponse, error) {
		c, err := s.liveCube(r.Parent)
		if err != nil {
			return nil, err
		}
		found, err := c.findAll(r.Names, "names")
		if err != nil {
			return nil, err
		}
		if r.Etag != "" && len(found) > 1 {
			return nil, mip.Field(pb.ErrorReason_ERROR_REASON_CONFLICTING_ARGUMENTS, "etag", "goes with one name")
		}
		if err := c.expect(r.ExpectedRevision); err != nil {
			return nil, err
		}
		if err := c.refusePurged(found[0]); err != nil {
			return nil, err
		}
		if err := s.checkEtag(r.Etag, found[0].uid, found[0].now().revision); err != nil {
			return nil, err
		}
		d := begin(c)
		if err := d.transition(pb.ChangeKind_CHANGE_KIND_MEMORY_DELETED, found, deleted); err != nil {
			return nil, err
		}
		made := d.finish(r, causeOr(r.Cause, "delete memories"))
		return &pb.DeleteMemoriesResponse{Commit: c.commitView(made)}, nil
	})
}
