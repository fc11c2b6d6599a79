package server

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/mip"
)

// maxProvenance is the limit of Memory.provenance.
const maxProvenance = 64

// MergeMemories lets one memory, existing or new, absorb others.
func (s *Server) MergeMemories(ctx context.Context, r *pb.MergeMemoriesRequest) (*pb.MergeMemoriesResponse, error) {
	return mutate(ctx, s, "MergeMemories", r.Parent, r, func() (*pb.MergeMemoriesResponse, error) {
		c, err := s.liveCube(r.Parent)
		if err != nil {
			return nil, err
		}
		sources, err := c.findAll(r.Sources, "sources")
		if err != nil {
			return nil, err
		}
		if err := c.checkTarget(r); err != nil {
			return nil, err
		}
		if err := c.expect(r.ExpectedRevision); err != nil {
			return nil, err
		}
		for _, m := range sources {
			if err := c.refusePurged(m); err != nil {
				return nil, err
			}
			if state := m.now().state; state != active && state != archived {
				return nil, c.invalidTransition(m)
			}
		}
		target, next, err := s.absorbing(c, r, sources)
		if err != nil {
			return nil, err
		}
		d := begin(c)
		kind := pb.ChangeKind_CHANGE_KIND_MEMORY_UPDATED
		if len(target.versions) == 0 {
			kind = pb.ChangeKind_CHANGE_KIND_MEMORY_ADDED
		}
		d.put(kind, target, next)
		for _, m := range sources {
			absorbed := m.now().moved(merged)
			absorbed.mergedInto = target.id
			d.put(pb.ChangeKind_CHANGE_KIND_MEMORY_MERGED, m, absorbed)
		}
		made := d.finish(r, causeOr(r.Cause, "merge memories"))
		return &pb.MergeMemoriesResponse{Memory: s.view(c, target, target.now()), Commit: c.commitView(made)}, nil
	})
}

// checkTarget checks that target and merged name one memory, which is no source.
func (c *cube) checkTarget(r *pb.MergeMemoriesRequest) error {
	switch {
	case r.Target == "" && r.Merged == nil:
		return mip.Field(pb.ErrorReason_ERROR_REASON_FIELD_REQUIRED, "target", "either target or merged must be set")
	case r.Target == "":
		return nil
	case mip.CubeOf(r.Target) != c.name():
		return otherCube("target", c)
	case r.Merged.GetName() != "" && r.Merged.GetName() != r.Target:
		return mip.Field(pb.ErrorReason_ERROR_REASON_CONFLICTING_ARGUMENTS, "merged.name", "target names another memory")
	}
	if _, err := c.find(r.Target); err != nil {
		return err
	}
	if slices.Contains(r.Sources, r.Target) {
		return mip.Field(pb.ErrorReason_ERROR_REASON_CONFLICTING_ARGUMENTS, "target", "is among the sources")
	}
	return nil
}

// absorbing makes the version of the memory that absorbs the sources: ACTIVE, at least as secret as the most secret source,
// and with provenance that names each source.
func (s *Server) absorbing(c *cube, r *pb.MergeMemoriesRequest, sources []*memory) (*memory, *version, error) {
	target, next := &memory{}, &version{}
	if r.Target == "" {
		made, v, err := c.newMemory(r.Merged, "merged")
		if err != nil {
			return nil, nil, err
		}
		target, next = made, v
	} else {
		target, _ = c.find(r.Target)
		if err := c.refuseGone(target); err != nil {
			return nil, nil, err
		}
		if err := s.checkEtag(r.Merged.GetEtag(), target.uid, target.now().revision); err != nil {
			return nil, nil, err
		}
		v, err := c.replaced(target.now(), r.Merged)
		if err != nil {
			return nil, nil, err
		}
		next = v
	}
	if err := c.credit(next, sources); err != nil {
		return nil, nil, err
	}
	for _, m := range sources {
		next.sensitivity = max(next.sensitivity, m.now().sensitivity)
	}
	return target, next, nil
}

// replaced is the version of an existing absorbing memory: with the content of the request, where it has some.
func (c *cube) replaced(now *version, asked *pb.Memory) (*version, error) {
	next := now.moved(active)
	if asked == nil {
		return next, nil
	}
	if asked.Session != now.content.memory.Session {
		if err := c.checkSession(asked.Session, "merged"); err != nil {
			return nil, err
		}
	}
	sealed, err := c.sealContent(contentOf(asked), "merged")
	if err != nil {
		return nil, err
	}
	if textOf(asked) != textOf(now.content.memory) {
		next.vectors = nil
	}
	if string(sealed.payload) != string(now.content.payload) {
		next.content = sealed
	}
	next.sensitivity = c.inherit(max(now.sensitivity, asked.Sensitivity), sealed.memory)
	if asked.Owner != "" {
		next.owner = asked.Owner
	}
	if len(asked.Vectors) > 0 {
		if next.vectors, err = c.checkVectors(asked.Vectors, "merged.vectors"); err != nil {
			return nil, err
		}
	}
	return next, nil
}

// credit adds the sources to the provenance of a version, with their revisions, as far as the field's limit permits.
func (c *cube) credit(next *version, sources []*memory) error {
	told := cloneContent(next.content)
	for _, m := range sources {
		entry := &pb.Provenance{
			Kind: pb.ProvenanceKind_PROVENANCE_KIND_MEMORY, Source: c.name() + "/memories/" + m.id, Revision: m.now().revision,
		}
		known := slices.ContainsFunc(told.Provenance, func(p *pb.Provenance) bool { return proto.Equal(p, entry) })
		if !known && len(told.Provenance) < maxProvenance {
			told.Provenance = append(told.Provenance, entry)
		}
	}
	if sameContent(next.content, told) {
		return nil
	}
	sealed, err := c.sealContent(told, "merged")
	if err != nil {
		return err
	}
	next.content = sealed
	return nil
}
