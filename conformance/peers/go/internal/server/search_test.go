package server

import (
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "mip.example/peer/gen/mip/v1"
)

func (w *world) search(r *pb.SearchMemoriesRequest) *pb.SearchMemoriesResponse {
	w.t.Helper()
	r.Cubes = []string{"cubes/c"}
	return must(w.memories.SearchMemories(w.ctx, r))(w.t)
}

func ids(out *pb.SearchMemoriesResponse) string {
	var found []string
	for _, hit := range out.Hits {
		found = append(found, strings.TrimPrefix(hit.Memory.Name, memoryName("")))
	}
	return strings.Join(found, " ")
}

func asked(query string) *pb.SearchMemoriesRequest {
	return &pb.SearchMemoriesRequest{Input: &pb.SearchMemoriesRequest_Query{Query: query}, Mode: pb.SearchMode_SEARCH_MODE_LEXICAL, Explain: true}
}

func TestSearchByWordsNowAndThen(t *testing.T) {
	w := start(t, time.Minute)
	spoken := text("spoken", "coffee")
	spoken.Provenance = []*pb.Provenance{{Speaker: "Zoë", Time: timestamppb.New(time.Date(2024, 3, 5, 0, 0, 0, 0, time.UTC))}}
	then := w.add(text("short", "Tea!"), text("long", "tea and many other words that are of no use"), spoken).Commit
	if got := ids(w.search(asked("TEA"))); got != "short long" {
		t.Errorf("got %q", got)
	}
	if got := ids(w.search(asked("zoë march"))); got != "spoken" {
		t.Errorf("got %q", got)
	}
	before := w.search(asked("tea"))
	w.update(text("short", "milk"))
	must(w.transition(deleted, "long"))(t)
	if got := w.search(asked("tea")); len(got.Hits) != 0 {
		t.Errorf("got %q", ids(got))
	}
	r := asked("tea")
	r.AsOfRevision = then.Revision
	past := w.search(r)
	r = asked("tea")
	r.AsOfTime = then.CreateTime
	for _, out := range []*pb.SearchMemoriesResponse{past, w.search(r)} {
		if ids(out) != ids(before) || out.Hits[0].Score != before.Hits[0].Score || out.Hits[0].Memory.GetPlaintext().Text != "Tea!" {
			t.Errorf("the past has %v", out)
		}
	}
	w.purge("short")
	if got := ids(w.search(r)); got != "long" {
		t.Errorf("the past has %q after a purge", got)
	}
	archivedOnly := &pb.SearchMemoriesRequest{Filter: "state = DELETED OR state = PURGED"}
	if got := ids(w.search(archivedOnly)); got != "long short" && got != "short long" {
		t.Errorf("got %q", got)
	}
	hybrid := w.search(&pb.SearchMemoriesRequest{Input: &pb.SearchMemoriesRequest_Query{Query: "coffee"}})
	if ids(hybrid) != "spoken" || len(hybrid.Notices) != 1 {
		t.Errorf("got %v", hybrid)
	}
}

func TestSearchByVector(t *testing.T) {
	w := start(t, time.Minute)
	near, far := text("near", "x"), text("far", "y")
	near.Vectors = []*pb.Vector{{Dimension: 2, Data: []byte{0, 0, 0x80, 0x3f, 0, 0, 0x80, 0x3f}}}          // 1, 1
	far.Vectors = []*pb.Vector{{Dimension: 2, Dtype: pb.Dtype_DTYPE_FLOAT16, Data: []byte{0, 0xbc, 0, 0}}} // -1, 0
	w.add(far, near, text("none", "z"))
	query := &pb.Vector{Model: "m", Dimension: 2, Data: []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0}} // 1, 0
	search := func(v *pb.Vector) (*pb.SearchMemoriesResponse, error) {
		return w.memories.SearchMemories(w.ctx, &pb.SearchMemoriesRequest{
			Cubes: []string{"cubes/c"}, Input: &pb.SearchMemoriesRequest_Vector{Vector: v}, Mode: pb.SearchMode_SEARCH_MODE_VECTOR,
		})
	}
	out := must(search(query))(t)
	if ids(out) != "near far" || math.Abs(out.Hits[0].Score-math.Sqrt(0.5)) > 1e-12 || out.Hits[1].Score != -1 {
		t.Errorf("got %v", out)
	}
	refused(search(&pb.Vector{Model: "other", Dimension: 2, Data: query.Data}))(t, "MODEL_MISMATCH")
	refused(search(&pb.Vector{Dimension: 1, Data: query.Data[:4]}))(t, "DIMENSION_MISMATCH")
	for _, data := range [][]byte{nil, query.Data[:7], make([]byte, 8), {0, 0, 0xc0, 0x7f, 0, 0, 0, 0}, {0, 0, 0x80, 0xff, 0, 0, 0, 0}} {
		refused(search(&pb.Vector{Dimension: 2, Data: data}))(t, "INVALID_VECTOR")
	}
	refused(w.memories.SearchMemories(w.ctx, &pb.SearchMemoriesRequest{
		Cubes: []string{"cubes/c"}, Input: &pb.SearchMemoriesRequest_Query{Query: "x"}, Mode: pb.SearchMode_SEARCH_MODE_VECTOR,
	}))(t, "EMBEDDER_UNAVAILABLE")
	refused(w.memories.SearchMemories(w.ctx, &pb.SearchMemoriesRequest{Cubes: []string{"cubes/c"}, Mode: pb.SearchMode_SEARCH_MODE_GRAPH}))(t, "UNIMPLEMENTED")
}

func TestHalfPrecision(t *testing.T) {
	for bits, want := range map[uint16]float64{
		0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0001: math.Ldexp(1, -24), 0x0400: math.Ldexp(1, -14), 0x3555: 0.333251953125, 0x7c00: math.Inf(1),
	} {
		if got := half(bits); got != want {
			t.Errorf("%04x is %v, want %v", bits, got, want)
		}
	}
	if !math.IsNaN(half(0x7e00)) {
		t.Error("7e00 is a number")
	}
}
