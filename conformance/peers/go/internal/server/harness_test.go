package server

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "mip.example/peer/gen/mip/v1"
)

// world is a server on loopback with clients of its services and one cube.
type world struct {
	t        *testing.T
	ctx      context.Context
	server   *Server
	conn     *grpc.ClientConn
	cubes    pb.CubeServiceClient
	memories pb.MemoryServiceClient
	sessions pb.SessionServiceClient
}

const testToken = "test-token"

func start(t *testing.T, patience time.Duration) *world {
	t.Helper()
	s := New(Options{Token: testToken, Heartbeat: 50 * time.Millisecond, Patience: patience})
	transport, err := s.GRPC()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go transport.Serve(listener)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A window that does not grow, so that it is known when it is full.
		grpc.WithStaticStreamWindowSize(1<<16), grpc.WithStaticConnWindowSize(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(func() {
		cancel()
		conn.Close()
		s.Stop(transport)
	})
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+testToken)
	w := &world{
		t: t, ctx: ctx, server: s, conn: conn, cubes: pb.NewCubeServiceClient(conn),
		memories: pb.NewMemoryServiceClient(conn), sessions: pb.NewSessionServiceClient(conn),
	}
	must(w.cubes.CreateCube(ctx, &pb.CreateCubeRequest{CubeId: "c", Cube: &pb.Cube{
		DisplayName: "first", EmbeddingModel: "m", EmbeddingDimension: 2,
	}}))(t)
	return w
}

// must returns the response of a call that may not fail.
func must[R any](response R, err error) func(t *testing.T) R {
	return func(t *testing.T) R {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
}

// reason is the reason of an error, with its metadata.
func reason(err error) (string, map[string]string) {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == "mip" {
			return info.Reason, info.Metadata
		}
	}
	return "", nil
}

func refused[R any](_ R, err error) func(t *testing.T, want string) map[string]string {
	return func(t *testing.T, want string) map[string]string {
		t.Helper()
		got, details := reason(err)
		if got != want {
			t.Fatalf("got %q (%v), want %s", got, err, want)
		}
		return details
	}
}

func memoryName(id string) string { return "cubes/c/memories/" + id }

func text(id, words string) *pb.Memory {
	return &pb.Memory{Name: memoryName(id), Payload: &pb.Memory_Plaintext{Plaintext: &pb.Plaintext{Text: words}}}
}

func (w *world) add(memories ...*pb.Memory) *pb.AddMemoriesResponse {
	w.t.Helper()
	return must(w.memories.AddMemories(w.ctx, &pb.AddMemoriesRequest{Parent: "cubes/c", Memories: memories}))(w.t)
}

func (w *world) get(id string) *pb.Memory {
	w.t.Helper()
	return w.getAt(id, 0)
}

func (w *world) getAt(id string, revision int64) *pb.Memory {
	w.t.Helper()
	return must(w.memories.GetMemory(w.ctx, &pb.GetMemoryRequest{Name: memoryName(id), AsOfRevision: revision, IncludeVectors: true}))(w.t).Memory
}

func (w *world) merge(target string, sources ...string) (*pb.MergeMemoriesResponse, error) {
	r := &pb.MergeMemoriesRequest{Parent: "cubes/c", Target: memoryName(target)}
	for _, source := range sources {
		r.Sources = append(r.Sources, memoryName(source))
	}
	return w.memories.MergeMemories(w.ctx, r)
}

func (w *world) transition(state pb.MemoryState, ids ...string) (*pb.TransitionMemoriesResponse, error) {
	r := &pb.TransitionMemoriesRequest{Parent: "cubes/c", State: state}
	for _, id := range ids {
		r.Names = append(r.Names, memoryName(id))
	}
	return w.memories.TransitionMemories(w.ctx, r)
}

func (w *world) purge(ids ...string) *pb.PurgeMemoriesResponse {
	w.t.Helper()
	r := &pb.PurgeMemoriesRequest{Parent: "cubes/c", Reason: "asked for"}
	for _, id := range ids {
		r.Names = append(r.Names, memoryName(id))
	}
	return must(w.memories.PurgeMemories(w.ctx, r))(w.t)
}

func (w *world) rollBack(revision int64) *pb.RollbackCubeResponse {
	w.t.Helper()
	return must(w.cubes.RollbackCube(w.ctx, &pb.RollbackCubeRequest{Name: "cubes/c", ToRevision: revision}))(w.t)
}

func (w *world) head() int64 {
	w.t.Helper()
	return must(w.cubes.GetCube(w.ctx, &pb.GetCubeRequest{Name: "cubes/c"}))(w.t).Cube.Revision
}

// verified checks that the log of a cube fits, as every test of changes ends.
func (w *world) verified(cube string) {
	w.t.Helper()
	if out := must(w.cubes.VerifyCube(w.ctx, &pb.VerifyCubeRequest{Name: cube}))(w.t); !out.Valid {
		w.t.Fatalf("%s does not verify: %v", cube, out.Findings)
	}
}
