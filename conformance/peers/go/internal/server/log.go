package server

import (
	"context"
	"strconv"

	"google.golang.org/protobuf/proto"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/mip"
)

const maxChangesPage = 10_000

// commitOf finds the commit that a name means; the log of a deleted or purged cube stays readable.
func (s *Server) commitOf(name string) (*cube, *commit, error) {
	c, err := s.cube(mip.CubeOf(name))
	if err != nil {
		return nil, nil, err
	}
	revision, err := strconv.ParseInt(mip.LastID(name), 10, 64)
	if err != nil || revision > c.revision() {
		return nil, nil, noRevision(c, revision)
	}
	return c, c.commits[revision-1], nil
}

func parseChange(data []byte) *pb.Change {
	change := &pb.Change{}
	if err := proto.Unmarshal(data, change); err != nil {
		panic(err) // It was serialized here.
	}
	return change
}

// ListCommits returns the log, newest first.
func (s *Server) ListCommits(ctx context.Context, r *pb.ListCommitsRequest) (*pb.ListCommitsResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, err := s.cube(r.Parent)
	if err != nil {
		return nil, err
	}
	at, err := s.open(r, place{revision: c.revision()})
	if err != nil {
		return nil, err
	}
	out := &pb.ListCommitsResponse{}
	out.NextPageToken, err = s.page(ctx, r, at, 50, maxPageSize, func(position int64) int {
		if position >= at.revision {
			return -1
		}
		out.Commits = append(out.Commits, c.commitView(c.commits[at.revision-1-position]))
		return proto.Size(out.Commits[len(out.Commits)-1])
	}, last(&out.Commits))
	return out, err
}

// GetCommit returns a commit, or the exact bytes of its header.
func (s *Server) GetCommit(_ context.Context, r *pb.GetCommitRequest) (*pb.GetCommitResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, found, err := s.commitOf(r.Name)
	if err != nil {
		return nil, err
	}
	if r.View == pb.View_VIEW_SEALED {
		return &pb.GetCommitResponse{SealedHeader: found.sealed}, nil
	}
	return &pb.GetCommitResponse{Commit: c.commitView(found)}, nil
}

// ListCommitChanges returns the changes of a commit, or their exact bytes.
func (s *Server) ListCommitChanges(ctx context.Context, r *pb.ListCommitChangesRequest) (*pb.ListCommitChangesResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, found, err := s.commitOf(r.Parent)
	if err != nil {
		return nil, err
	}
	at, err := s.open(r, place{})
	if err != nil {
		return nil, err
	}
	out := &pb.ListCommitChangesResponse{}
	isSealed := r.View == pb.View_VIEW_SEALED
	drop := last(&out.Changes)
	if isSealed {
		drop = last(&out.SealedChanges)
	}
	out.NextPageToken, err = s.page(ctx, r, at, 1000, maxChangesPage, func(position int64) int {
		if position >= int64(len(found.changes)) {
			return -1
		}
		data := found.changes[position]
		if isSealed {
			out.SealedChanges = append(out.SealedChanges, data)
		} else {
			out.Changes = append(out.Changes, parseChange(data))
		}
		return len(data) + 8 // With its tag and length.
	}, drop)
	return out, err
}
