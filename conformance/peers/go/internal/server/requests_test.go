package server

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pb "mip.example/peer/gen/mip/v1"
)

const someID = "4c0f6a3e-58a1-4a7e-9d0b-0a4d7b2f9c11"

func TestConcurrentRepeatsTakeEffectOnce(t *testing.T) {
	w := start(t, time.Minute)
	var wait sync.WaitGroup
	names := make([]string, 20)
	for i := range names {
		wait.Add(1)
		go func() {
			defer wait.Done()
			id := someID
			if i%2 == 1 {
				id = strings.ToUpper(id)
			}
			m := text("x", "once")
			m.Name = ""
			out, err := w.memories.AddMemories(w.ctx, &pb.AddMemoriesRequest{Parent: "cubes/c", RequestId: id, Memories: []*pb.Memory{m}})
			if err != nil {
				t.Error(err)
				return
			}
			names[i] = out.Memories[0].Name
		}()
	}
	wait.Wait()
	for _, name := range names {
		if name != names[0] {
			t.Fatalf("the answers differ: %q", names)
		}
	}
	if w.head() != 2 {
		t.Errorf("the head is %d", w.head())
	}
	refused(w.memories.AddMemories(w.ctx, &pb.AddMemoriesRequest{
		Parent: "cubes/c", RequestId: someID, Memories: []*pb.Memory{text("y", "another")},
	}))(t, "REQUEST_ID_REUSED")
}

func TestARepeatDoesNotBringBackWhatIsPurged(t *testing.T) {
	w := start(t, time.Minute)
	r := &pb.AddMemoriesRequest{Parent: "cubes/c", RequestId: someID, Memories: []*pb.Memory{text("a", "secret words"), text("b", "stay")}}
	first := must(w.memories.AddMemories(w.ctx, r))(t)
	w.purge("a")
	again := must(w.memories.AddMemories(w.ctx, r))(t)
	if !proto.Equal(first.Commit, again.Commit) || !proto.Equal(first.Memories[1], again.Memories[1]) {
		t.Errorf("got %v", again)
	}
	want := &pb.Memory{Name: memoryName("a"), Uid: first.Memories[0].Uid, State: purged, Revision: 3}
	if !proto.Equal(again.Memories[0], want) {
		t.Errorf("got %v", again.Memories[0])
	}
	for _, revision := range []int64{0, 2} {
		if got := w.getAt("a", revision); !proto.Equal(got, want) {
			t.Errorf("at %d: %v", revision, got)
		}
	}
	refused(w.memories.GetMemory(w.ctx, &pb.GetMemoryRequest{Name: memoryName("a"), View: pb.View_VIEW_SEALED}))(t, "MEMORY_PURGED")
	w.verified("cubes/c")
}

func TestARepeatOutlivesItsResource(t *testing.T) {
	w := start(t, time.Minute)
	r := &pb.DeleteCubeRequest{Name: "cubes/c", RequestId: someID}
	first := must(w.cubes.DeleteCube(w.ctx, r))(t)
	if again := must(w.cubes.DeleteCube(w.ctx, r))(t); !proto.Equal(first, again) {
		t.Errorf("got %v", again)
	}
	refused(w.cubes.DeleteCube(w.ctx, &pb.DeleteCubeRequest{Name: "cubes/c"}))(t, "CUBE_DELETED")
	refused(w.memories.ListMemories(w.ctx, &pb.ListMemoriesRequest{Parent: "cubes/c"}))(t, "CUBE_DELETED")
	must(w.cubes.ListCommits(w.ctx, &pb.ListCommitsRequest{Parent: "cubes/c"}))(t)
	must(w.cubes.PurgeCube(w.ctx, &pb.PurgeCubeRequest{Name: "cubes/c", Reason: "asked for"}))(t)
	refused(w.cubes.UndeleteCube(w.ctx, &pb.UndeleteCubeRequest{Name: "cubes/c"}))(t, "CUBE_PURGED")
	if again := must(w.cubes.DeleteCube(w.ctx, r))(t); again.Cube.DisplayName != "" {
		t.Errorf("the repeat brings back %v", again.Cube)
	}
	w.verified("cubes/c")
}

func TestPagesAreOneListing(t *testing.T) {
	w := start(t, time.Minute)
	for i := range 5 {
		w.add(text(fmt.Sprint("m", i), "words"))
	}
	r := &pb.ListMemoriesRequest{Parent: "cubes/c", PageSize: 2}
	var seen []string
	for {
		page := must(w.memories.ListMemories(w.ctx, r))(t)
		for _, m := range page.Memories {
			seen = append(seen, m.Name+" "+m.GetPlaintext().Text)
		}
		if r.PageToken = page.NextPageToken; r.PageToken == "" {
			break
		}
		w.add(text(fmt.Sprint("new", len(seen)), "late"))
		w.update(text("m4", "changed"))
	}
	if len(seen) != 5 || seen[4] != memoryName("m4")+" words" {
		t.Errorf("got %q", seen)
	}
	first := must(w.memories.ListMemories(w.ctx, &pb.ListMemoriesRequest{Parent: "cubes/c", PageSize: 2}))(t)
	for _, other := range []*pb.ListMemoriesRequest{
		{Parent: "cubes/c", PageToken: first.NextPageToken + "x"},
		{Parent: "cubes/c", PageToken: first.NextPageToken, ShowDeleted: true},
		{Parent: "cubes/c", PageToken: first.NextPageToken, Filter: "tags:x"},
		{Parent: "cubes/c", PageToken: "AAAA"},
	} {
		refused(w.memories.ListMemories(w.ctx, other))(t, "INVALID_PAGE_TOKEN")
	}
	refused(w.cubes.ListCommits(w.ctx, &pb.ListCommitsRequest{Parent: "cubes/c", PageToken: first.NextPageToken}))(t, "INVALID_PAGE_TOKEN")
	refused(w.memories.ListMemories(w.ctx, &pb.ListMemoriesRequest{Parent: "cubes/c", PageSize: -1}))(t, "INVALID_FIELD")
}

func TestChecksComeInOrder(t *testing.T) {
	w := start(t, time.Minute)
	bare, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	wrong := metadata.AppendToOutgoingContext(bare, "authorization", "Bearer nonsense")
	invalid := &pb.GetCubeRequest{Name: "no name"}
	refused(w.cubes.GetCube(bare, invalid))(t, "UNAUTHENTICATED")
	refused(w.cubes.GetCube(wrong, invalid))(t, "TOKEN_INVALID")
	refused(w.cubes.GetCube(w.ctx, invalid))(t, "INVALID_NAME")
	refused(w.cubes.GetCube(w.ctx, &pb.GetCubeRequest{Name: "cubes/absent"}))(t, "CUBE_NOT_FOUND")
	must(pb.NewServerServiceClient(w.conn).GetCapabilities(bare, &pb.GetCapabilitiesRequest{}))(t)

	call := func(method string, data []byte) error {
		return w.conn.Invoke(w.ctx, method, &raw{data}, &raw{}, grpc.ForceCodecV2(clientCodec{}))
	}
	const get = "/mip.v1.CubeService/GetCube"
	refused(0, call(get, []byte{0xff}))(t, "MALFORMED_MESSAGE")
	refused(0, call(get, []byte{0x0a, 1, 0xff}))(t, "MALFORMED_MESSAGE") // Not UTF-8.
	refused(0, call(get, append([]byte{0x12, 0x80, 0x80, 0x80, 2}, make([]byte, 4<<20)...)))(t, "REQUEST_TOO_LARGE")
	for _, absent := range []string{"/mip.v1.AccessService/WhoAmI", "/mip.v1.BlobService/ReadBlob", "/mip.v1.CubeService/Nothing", "/mip.v1.ServerService/GetServerStats"} {
		refused(0, call(absent, nil))(t, "UNIMPLEMENTED")
	}
}

// clientCodec sends a message as it is.
type clientCodec struct{ rawCodec }

func (clientCodec) Marshal(value any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(value.(*raw).data)}, nil
}

func TestUnknownFieldsAreKept(t *testing.T) {
	w := start(t, time.Minute)
	// Fields 21 and 100 are content, field 50 stands around it.
	unknown := []byte{0xaa, 1, 3, 'n', 'e', 'w', 0xa2, 6, 1, 'x', 0x92, 3, 1, 'y'}
	m := text("a", "tea")
	m.ProtoReflect().SetUnknown(unknown)
	m.Tags = []string{"t"}
	w.add(m)
	sealed := func() string {
		out := must(w.memories.GetMemory(w.ctx, &pb.GetMemoryRequest{Name: memoryName("a"), View: pb.View_VIEW_SEALED}))(t)
		return string(out.Sealed.Payload)
	}
	if got, want := sealed(), "\x0a\x05\x0a\x03tea\x2a\x01t"+string(unknown[:10]); got != want {
		t.Errorf("got %x, want %x", got, want)
	}
	must(w.memories.UpdateMemory(w.ctx, &pb.UpdateMemoryRequest{Memory: text("a", "milk"), UpdateMask: mask("plaintext")}))(t)
	if got, want := sealed(), "\x0a\x06\x0a\x04milk\x2a\x01t"+string(unknown[:10]); got != want {
		t.Errorf("got %x, want %x", got, want)
	}
	must(w.memories.UpdateMemory(w.ctx, &pb.UpdateMemoryRequest{Memory: text("a", "milk"), UpdateMask: mask("*")}))(t)
	if got, want := sealed(), "\x0a\x06\x0a\x04milk"; got != want {
		t.Errorf("got %x, want %x", got, want)
	}
}

func TestBulkStreams(t *testing.T) {
	w := start(t, time.Minute)
	header := &pb.BulkAddMemoriesRequest{Frame: &pb.BulkAddMemoriesRequest_Header_{Header: &pb.BulkAddMemoriesRequest_Header{Parent: "cubes/c", RequestId: someID}}}
	batch := func(memories ...*pb.Memory) *pb.BulkAddMemoriesRequest {
		return &pb.BulkAddMemoriesRequest{Frame: &pb.BulkAddMemoriesRequest_Batch_{Batch: &pb.BulkAddMemoriesRequest_Batch{Memories: memories}}}
	}
	finish := &pb.BulkAddMemoriesRequest{Frame: &pb.BulkAddMemoriesRequest_Finish{Finish: true}}
	send := func(frames ...*pb.BulkAddMemoriesRequest) (*pb.BulkAddMemoriesResponse, error) {
		stream, err := w.memories.BulkAddMemories(w.ctx)
		for _, frame := range frames {
			if err == nil {
				if err = stream.Send(frame); err == io.EOF {
					err = nil // The answer came early.
				}
			}
		}
		if err != nil {
			return nil, err
		}
		return stream.CloseAndRecv()
	}
	one, two, three := text("a", "1"), text("b", "2"), text("d", "3")
	for _, frames := range [][]*pb.BulkAddMemoriesRequest{
		{}, {header}, {header, finish}, {header, batch(one)}, {batch(one), finish}, {header, header, batch(one), finish},
		{header, batch(one), finish, finish}, {header, batch(one), finish, batch(two)}, {header, {}, finish},
	} {
		refused(send(frames...))(t, "INVALID_STREAM")
	}
	refused(send(header, batch(one, text("b", "")), finish))(t, "FIELD_REQUIRED")
	refused(send(header, batch(one), batch(one), finish))(t, "INVALID_NAME")
	if w.head() != 1 {
		t.Fatalf("a refused stream made a commit: %d", w.head())
	}
	first := must(send(header, batch(one, two), batch(three), finish))(t)
	again := must(send(header, batch(one), batch(two, three), finish))(t)
	if first.MemoryCount != 3 || first.Commit.ChangeCount != 3 || !proto.Equal(first, again) {
		t.Errorf("got %v and %v", first, again)
	}
	refused(send(header, batch(three, two, one), finish))(t, "REQUEST_ID_REUSED")
	if w.server.openBulk != 0 {
		t.Errorf("%d bytes are held after all streams", w.server.openBulk)
	}
	w.verified("cubes/c")
}
