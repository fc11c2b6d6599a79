package server

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/filter"
	"mip.example/peer/internal/mip"
)

// memoryAt finds a memory and the version that a revision sees.
func (c *cube) memoryAt(name string, revision int64) (*memory, *version, error) {
	m, err := c.find(name)
	if err != nil {
		return nil, nil, err
	}
	v := m.at(revision)
	if v == nil {
		return nil, nil, noMemory(name)
	}
	return m, v, nil
}

// GetMemory returns a memory, or its sealed content, which a purged one has no more.
func (s *Server) GetMemory(_ context.Context, r *pb.GetMemoryRequest) (*pb.GetMemoryResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, err := s.cube(mip.CubeOf(r.Name))
	if err != nil {
		return nil, err
	}
	revision, err := c.asOf(r.AsOfRevision)
	if err != nil {
		return nil, err
	}
	m, v, err := c.memoryAt(r.Name, revision)
	if err != nil {
		return nil, err
	}
	if r.View == pb.View_VIEW_SEALED {
		if err := c.refusePurged(m); err != nil {
			return nil, err
		}
		return &pb.GetMemoryResponse{Sealed: &pb.Sealed{Payload: v.content.payload, Salt: v.content.salt}}, nil
	}
	out := s.view(c, m, v)
	if r.IncludeVectors {
		out.Vectors = v.vectors
	}
	return &pb.GetMemoryResponse{Memory: out}, nil
}

// BatchGetMemories returns memories in the order of their names.
func (s *Server) BatchGetMemories(_ context.Context, r *pb.BatchGetMemoriesRequest) (*pb.BatchGetMemoriesResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, err := s.cube(r.Parent)
	if err != nil {
		return nil, err
	}
	revision, err := c.asOf(r.AsOfRevision)
	if err != nil {
		return nil, err
	}
	if err := c.checkNames(r.Names, "names"); err != nil {
		return nil, err
	}
	out := &pb.BatchGetMemoriesResponse{}
	bytes := 0
	for _, name := range r.Names {
		m, v, err := c.memoryAt(name, revision)
		if err != nil {
			return nil, err
		}
		out.Memories = append(out.Memories, s.view(c, m, v))
		if bytes += proto.Size(out.Memories[len(out.Memories)-1]); bytes > maxResponseBytes {
			return nil, mip.Refuse(pb.ErrorReason_ERROR_REASON_RESPONSE_TOO_LARGE, "the memories have more than %d bytes", maxResponseBytes)
		}
	}
	return out, nil
}

func parseFilter(text string) (*filter.Filter, error) {
	parsed, err := filter.Parse(text)
	if err != nil {
		return nil, mip.Field(pb.ErrorReason_ERROR_REASON_INVALID_FILTER, "filter", "%s", err.Message).With("position", fmt.Sprint(err.Position))
	}
	return parsed, nil
}

// ListMemories returns the memories in the order of their addition, all pages at the revision of the first.
func (s *Server) ListMemories(ctx context.Context, r *pb.ListMemoriesRequest) (*pb.ListMemoriesResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, err := s.cube(r.Parent)
	if err != nil {
		return nil, err
	}
	revision, err := c.asOf(r.AsOfRevision)
	if err != nil {
		return nil, err
	}
	parsed, err := parseFilter(r.Filter)
	if err != nil {
		return nil, err
	}
	at, err := s.open(r, place{revision: revision})
	if err != nil {
		return nil, err
	}
	out := &pb.ListMemoriesResponse{}
	out.NextPageToken, err = s.page(ctx, r, at, 50, maxPageSize, func(position int64) int {
		if position >= int64(len(c.order)) {
			return -1
		}
		m := c.order[position]
		v := m.at(at.revision)
		if v == nil {
			return -1 // Those after it were added later still.
		}
		if gone := m.purged() || v.state == deleted; gone && !r.ShowDeleted {
			return 0
		}
		listed := s.view(c, m, v)
		if !parsed.Passes(listed) {
			return 0
		}
		out.Memories = append(out.Memories, listed)
		return proto.Size(listed)
	}, last(&out.Memories))
	return out, err
}

// ListMemoryRevisions returns the versions of a memory, newest first. Of a purged one the purge is all that is left.
func (s *Server) ListMemoryRevisions(ctx context.Context, r *pb.ListMemoryRevisionsRequest) (*pb.ListMemoryRevisionsResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, err := s.liveCube(mip.CubeOf(r.Name))
	if err != nil {
		return nil, err
	}
	m, err := c.find(r.Name)
	if err != nil {
		return nil, err
	}
	at, err := s.open(r, place{revision: c.revision()})
	if err != nil {
		return nil, err
	}
	var versions []*version
	for _, v := range m.versions {
		if v.revision <= at.revision {
			versions = append(versions, v)
		}
	}
	if m.purged() {
		versions = []*version{m.now()}
	}
	out := &pb.ListMemoryRevisionsResponse{}
	out.NextPageToken, err = s.page(ctx, r, at, 50, maxPageSize, func(position int64) int {
		if position >= int64(len(versions)) {
			return -1
		}
		out.Memories = append(out.Memories, s.view(c, m, versions[int64(len(versions))-1-position]))
		return proto.Size(out.Memories[len(out.Memories)-1])
	}, last(&out.Memories))
	return out, err
}
