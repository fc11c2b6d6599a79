package server

import (
	"context"

	"google.golang.org/protobuf/proto"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/mip"
)

// CreateSession begins a session.
func (s *Server) CreateSession(ctx context.Context, r *pb.CreateSessionRequest) (*pb.CreateSessionResponse, error) {
	return mutate(ctx, s, "CreateSession", r.Parent, r, func() (*pb.CreateSessionResponse, error) {
		c, err := s.liveCube(r.Parent)
		if err != nil {
			return nil, err
		}
		t := &session{id: r.SessionId, uid: newID(), owner: principal}
		if t.id == "" {
			t.id = newID()
		}
		if c.sessions[t.id] != nil {
			return nil, mip.Refuse(pb.ErrorReason_ERROR_REASON_ALREADY_EXISTS, "%s/sessions/%s exists", c.name(), t.id)
		}
		asked := proto.Clone(&pb.SessionContent{
			DisplayName: r.GetSession().GetDisplayName(), Participants: r.GetSession().GetParticipants(), Labels: r.GetSession().GetLabels(),
		}).(*pb.SessionContent)
		if err := sortLabels(asked.Labels, "session"); err != nil {
			return nil, err
		}
		made := seal(asked)
		t.sealed, t.content = &made, asked
		d := begin(c)
		d.putSession(t, false)
		entry := d.finish(r, "create session")
		return &pb.CreateSessionResponse{Session: c.sessionView(t), Commit: c.commitView(entry)}, nil
	})
}

func (s *Server) session(name string) (*cube, *session, error) {
	c, err := s.liveCube(mip.CubeOf(name))
	if err != nil {
		return nil, nil, err
	}
	if t := c.sessions[mip.LastID(name)]; t != nil {
		return c, t, nil
	}
	return nil, nil, mip.Refuse(pb.ErrorReason_ERROR_REASON_SESSION_NOT_FOUND, "%s does not exist", name)
}

// GetSession returns a session.
func (s *Server) GetSession(_ context.Context, r *pb.GetSessionRequest) (*pb.GetSessionResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, t, err := s.session(r.Name)
	if err != nil {
		return nil, err
	}
	return &pb.GetSessionResponse{Session: c.sessionView(t)}, nil
}

// ListSessions returns the sessions of a cube in the order of their creation.
func (s *Server) ListSessions(ctx context.Context, r *pb.ListSessionsRequest) (*pb.ListSessionsResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, err := s.liveCube(r.Parent)
	if err != nil {
		return nil, err
	}
	at, err := s.open(r, place{})
	if err != nil {
		return nil, err
	}
	out := &pb.ListSessionsResponse{}
	out.NextPageToken, err = s.page(ctx, r, at, 50, maxPageSize, func(position int64) int {
		if position >= int64(len(c.talks)) {
			return -1
		}
		out.Sessions = append(out.Sessions, c.sessionView(c.talks[position]))
		return proto.Size(out.Sessions[len(out.Sessions)-1])
	}, last(&out.Sessions))
	return out, err
}

// EndSession ends a session, once.
func (s *Server) EndSession(ctx context.Context, r *pb.EndSessionRequest) (*pb.EndSessionResponse, error) {
	return mutate(ctx, s, "EndSession", r.Name, r, func() (*pb.EndSessionResponse, error) {
		c, t, err := s.session(r.Name)
		if err != nil {
			return nil, err
		}
		if t.ended != nil {
			return nil, mip.Refuse(pb.ErrorReason_ERROR_REASON_SESSION_ENDED, "%s has ended", r.Name)
		}
		d := begin(c)
		d.endSession(t)
		made := d.finish(r, "end session")
		return &pb.EndSessionResponse{Session: c.sessionView(t), Commit: c.commitView(made)}, nil
	})
}
