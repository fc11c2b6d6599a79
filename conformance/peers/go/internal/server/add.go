package server

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/mip"
)

// AddMemories adds memories in one commit.
func (s *Server) AddMemories(ctx context.Context, r *pb.AddMemoriesRequest) (*pb.AddMemoriesResponse, error) {
	return mutate(ctx, s, "AddMemories", r.Parent, r, func() (*pb.AddMemoriesResponse, error) {
		path := func(i int) string { return fmt.Sprintf("memories[%d]", i) }
		c, added, made, err := s.add(r, path)
		if err != nil {
			return nil, err
		}
		out := &pb.AddMemoriesResponse{Commit: c.commitView(made)}
		for _, m := range added {
			out.Memories = append(out.Memories, s.view(c, m, m.now()))
		}
		return out, nil
	})
}

// add checks all memories of a request, then adds them in one commit. path names the place of a memory in the request.
func (s *Server) add(r *pb.AddMemoriesRequest, path func(i int) string) (*cube, []*memory, *commit, error) {
	c, err := s.liveCube(r.Parent)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := c.expect(r.ExpectedRevision); err != nil {
		return nil, nil, nil, err
	}
	batch := map[string]*version{}
	var added []*memory
	var versions []*version
	for i, asked := range r.Memories {
		m, v, err := c.newMemory(asked, path(i))
		if err != nil {
			return nil, nil, nil, err
		}
		if batch[m.id] != nil {
			return nil, nil, nil, namedTwice(path(i) + ".name")
		}
		batch[m.id] = v
		added, versions = append(added, m), append(versions, v)
	}
	c.inheritWithin(batch)
	d := begin(c)
	for i, m := range added {
		d.put(pb.ChangeKind_CHANGE_KIND_MEMORY_ADDED, m, versions[i])
	}
	return c, added, d.finish(r, causeOr(r.Cause, "add memories")), nil
}

func causeOr(cause, usual string) string {
	if cause != "" {
		return cause
	}
	return usual
}

func taken(c *cube, id string) error {
	return mip.Refuse(pb.ErrorReason_ERROR_REASON_ALREADY_EXISTS, "%s/memories/%s exists or existed", c.name(), id)
}

// newMemory checks a memory of a request and makes its first version.
func (c *cube) newMemory(asked *pb.Memory, path string) (*memory, *version, error) {
	m := &memory{uid: newID()}
	switch {
	case asked.Name == "":
		m.id = newID()
	case mip.CubeOf(asked.Name) != c.name():
		return nil, nil, otherCube(path+".name", c)
	default:
		m.id = mip.LastID(asked.Name)
	}
	if c.memories[m.id] != nil {
		return nil, nil, taken(c, m.id)
	}
	if err := c.checkSession(asked.Session, path); err != nil {
		return nil, nil, err
	}
	vectors, err := c.checkVectors(asked.Vectors, path+".vectors")
	if err != nil {
		return nil, nil, err
	}
	sealed, err := c.sealContent(contentOf(asked), path)
	if err != nil {
		return nil, nil, err
	}
	v := &version{state: active, content: sealed, owner: asked.Owner, vectors: vectors}
	if v.owner == "" {
		v.owner = principal
	}
	v.sensitivity = c.inherit(asked.Sensitivity, sealed.memory)
	return m, v, nil
}

// inheritWithin raises levels along provenance between the memories of one batch, until nothing changes.
func (c *cube) inheritWithin(batch map[string]*version) {
	for raised := true; raised; {
		raised = false
		for _, v := range batch {
			for _, id := range c.sourceNames(v.content.memory) {
				if source := batch[id]; source != nil && source.sensitivity > v.sensitivity {
					v.sensitivity, raised = source.sensitivity, true
				}
			}
		}
	}
}

// bulk is a stream of BulkAddMemories while it comes in.
type bulk struct {
	server  *Server
	request *pb.AddMemoriesRequest
	batches []int // The number of memories up to the end of each batch.
	bytes   int64
}

// take counts a batch against the bounds of the stream and of all streams.
func (b *bulk) take(memories []*pb.Memory) error {
	size := int64(proto.Size(&pb.BulkAddMemoriesRequest_Batch{Memories: memories}))
	if len(b.request.Memories)+len(memories) > maxBulkMemories {
		return mip.Field(pb.ErrorReason_ERROR_REASON_TOO_MANY_ITEMS, "batch.memories", "the stream has more than %d memories", maxBulkMemories)
	}
	if b.bytes+size > maxBulkBytes {
		return mip.Refuse(pb.ErrorReason_ERROR_REASON_REQUEST_TOO_LARGE, "the stream has more than %d bytes", maxBulkBytes)
	}
	b.server.mu.Lock()
	defer b.server.mu.Unlock()
	if b.server.openBulk+size > maxOpenBulkBytes {
		return mip.Refuse(pb.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED, "other streams hold what is set aside for memories that are not stored yet").
			With("quota", "open_bulk_bytes").RetryAfter(1)
	}
	b.server.openBulk += size
	b.bytes += size
	b.request.Memories = append(b.request.Memories, memories...)
	b.batches = append(b.batches, len(b.request.Memories))
	return nil
}

// path names a memory by its place within its batch.
func (b *bulk) path(i int) string {
	start := 0
	for _, end := range b.batches {
		if i < end {
			break
		}
		start = end
	}
	return fmt.Sprintf("batch.memories[%d]", i-start)
}

func invalidStream(message string) error {
	return mip.Refuse(pb.ErrorReason_ERROR_REASON_INVALID_STREAM, "%s", message)
}

// BulkAddMemories takes a header, batches and finish, and adds all memories in one commit.
func (s *Server) BulkAddMemories(stream grpc.ClientStreamingServer[pb.BulkAddMemoriesRequest, pb.BulkAddMemoriesResponse]) error {
	b := &bulk{server: s}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.openBulk -= b.bytes
	}()
	for finished := false; ; {
		frame, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if !finished {
				return invalidStream("the stream ended without finish")
			}
			break
		}
		if err != nil {
			return err
		}
		switch part := frame.Frame.(type) {
		case *pb.BulkAddMemoriesRequest_Header_:
			if b.request != nil {
				return invalidStream("a second header")
			}
			b.request = &pb.AddMemoriesRequest{
				Parent: part.Header.Parent, RequestId: part.Header.RequestId, Cause: part.Header.Cause,
				ExpectedRevision: part.Header.ExpectedRevision,
			}
			if err := s.exists(b.request.Parent); err != nil {
				return err
			}
		case *pb.BulkAddMemoriesRequest_Batch_:
			if b.request == nil || finished {
				return invalidStream("a batch before the header or after finish")
			}
			if err := b.take(part.Batch.Memories); err != nil {
				return err
			}
		case *pb.BulkAddMemoriesRequest_Finish:
			if len(b.batches) == 0 || finished || !part.Finish {
				return invalidStream("finish is true, comes once, and after a batch")
			}
			finished = true
		default:
			return invalidStream("a frame that is neither header, batch nor finish")
		}
	}
	out, err := mutate(stream.Context(), s, "BulkAddMemories", b.request.Parent, b.request, func() (*pb.BulkAddMemoriesResponse, error) {
		c, added, made, err := s.add(b.request, b.path)
		if err != nil {
			return nil, err
		}
		return &pb.BulkAddMemoriesResponse{Commit: c.commitView(made), MemoryCount: int64(len(added))}, nil
	})
	if err != nil {
		return err
	}
	return stream.SendAndClose(out)
}

func (s *Server) exists(name string) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, err := s.cube(name)
	return err
}
