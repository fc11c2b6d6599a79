package server

import (
	"errors"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/mip"
)

// changesBytes is what the changes of one frame may take: 1 MiB with what frames them.
const changesBytes = 1<<20 - 64<<10

// watch is one WatchCube: what it has sent, and how it sends.
type watch struct {
	stream   grpc.ServerStreamingServer[pb.WatchCubeResponse]
	patience time.Duration
	last     int64
}

var errSlow = errors.New("the reader is too slow")

// send gives a frame to the transport, which waits while the reader's window is full; but not longer than patience lasts.
func (w *watch) send(frame *pb.WatchCubeResponse) error {
	sent := make(chan error, 1)
	go func() { sent <- w.stream.Send(frame) }()
	slow := time.NewTimer(w.patience)
	defer slow.Stop()
	select {
	case err := <-sent:
		return err
	case <-w.stream.Context().Done():
		return w.stream.Context().Err()
	case <-slow.C:
		return errSlow
	}
}

// WatchCube sends the log from a revision on, and goes on with what is added to it.
func (s *Server) WatchCube(r *pb.WatchCubeRequest, stream grpc.ServerStreamingServer[pb.WatchCubeResponse]) error {
	c, next, err := s.startWatch(r)
	if err != nil {
		return err
	}
	w := &watch{stream: stream, patience: s.options.Patience, last: next - 1}
	// The headers tell the client that the watch has begun: what is committed from now on will be sent.
	if err := stream.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	err = s.follow(c, w, r.View == pb.View_VIEW_SEALED)
	if errors.Is(err, errSlow) {
		return mip.Refuse(pb.ErrorReason_ERROR_REASON_WATCH_TOO_SLOW, "the client reads too slowly").
			With("last_revision", strconv.FormatInt(w.last, 10))
	}
	return err
}

func (s *Server) startWatch(r *pb.WatchCubeRequest) (*cube, int64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, err := s.cube(r.Name)
	if err != nil {
		return nil, 0, err
	}
	next := c.revision() + 1
	if r.StartRevision > next {
		return nil, 0, noRevision(c, r.StartRevision)
	}
	if r.StartRevision > 0 {
		next = r.StartRevision
	}
	return c, next, nil
}

// follow sends commits as they come, and heartbeats while none does.
func (s *Server) follow(c *cube, w *watch, isSealed bool) error {
	idle := time.NewTicker(s.options.Heartbeat)
	defer idle.Stop()
	for {
		s.mu.RLock()
		moved := c.moved
		pending := c.commits[w.last:]
		s.mu.RUnlock()
		for _, made := range pending {
			if err := w.sendCommit(c, made, isSealed); err != nil {
				return err
			}
			idle.Reset(s.options.Heartbeat)
		}
		if len(pending) > 0 {
			continue
		}
		select {
		case <-moved:
		case <-idle.C:
			heartbeat := &pb.WatchCubeResponse_Heartbeat{Revision: w.last, Time: timestamppb.New(time.Now().UTC().Truncate(time.Microsecond))}
			if err := w.send(&pb.WatchCubeResponse{Frame: &pb.WatchCubeResponse_Heartbeat_{Heartbeat: heartbeat}}); err != nil {
				return err
			}
		case <-w.stream.Context().Done():
			return w.stream.Context().Err()
		case <-s.stop.Done():
			return mip.Refuse(pb.ErrorReason_ERROR_REASON_SHUTTING_DOWN, "the server is shutting down").RetryAfter(1)
		}
	}
}

// sendCommit sends a commit as a whole: its begin, its changes in frames, its end.
func (w *watch) sendCommit(c *cube, made *commit, isSealed bool) error {
	begin := &pb.WatchCubeResponse{Frame: &pb.WatchCubeResponse_Commit{Commit: c.commitView(made)}}
	if isSealed {
		begin.Frame = &pb.WatchCubeResponse_SealedHeader{SealedHeader: made.sealed}
	}
	if err := w.send(begin); err != nil {
		return err
	}
	for rest := made.changes; len(rest) > 0; {
		frame, bytes, taken := &pb.WatchCubeResponse_Changes{}, 0, 0
		for taken < len(rest) && (taken == 0 || bytes+len(rest[taken]) <= changesBytes) {
			if isSealed {
				frame.SealedChanges = append(frame.SealedChanges, rest[taken])
			} else {
				frame.Changes = append(frame.Changes, parseChange(rest[taken]))
			}
			bytes += len(rest[taken])
			taken++
		}
		rest = rest[taken:]
		if err := w.send(&pb.WatchCubeResponse{Frame: &pb.WatchCubeResponse_Changes_{Changes: frame}}); err != nil {
			return err
		}
	}
	end := &pb.WatchCubeResponse_End{Revision: made.header.Revision}
	if err := w.send(&pb.WatchCubeResponse{Frame: &pb.WatchCubeResponse_End_{End: end}}); err != nil {
		return err
	}
	w.last = made.header.Revision
	return nil
}
