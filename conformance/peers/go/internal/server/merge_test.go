package server

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "mip.example/peer/gen/mip/v1"
)

func TestMergeIntoAnExistingMemory(t *testing.T) {
	w := start(t, time.Minute)
	secret := text("s", "the secret")
	secret.Sensitivity = pb.Sensitivity_SENSITIVITY_SECRET
	w.add(text("a", "tea"), text("b", "more tea"), secret)
	must(w.transition(archived, "a"))(t)
	out := must(w.merge("a", "b", "s"))(t)

	got := out.Memory
	if got.State != active || got.Sensitivity != pb.Sensitivity_SENSITIVITY_SECRET || got.GetPlaintext().Text != "tea" {
		t.Errorf("the absorbing memory is %v", got)
	}
	if len(got.Provenance) != 2 || got.Provenance[0].Source != memoryName("b") || got.Provenance[0].Revision != 2 {
		t.Errorf("its provenance is %v", got.Provenance)
	}
	source := w.get("b")
	if source.State != merged || source.MergedInto != memoryName("a") || source.GetPlaintext().Text != "more tea" {
		t.Errorf("the source is %v", source)
	}
	changes := must(w.cubes.ListCommitChanges(w.ctx, &pb.ListCommitChangesRequest{Parent: out.Commit.Name}))(t).Changes
	if len(changes) != 3 || changes[1].MergedInto != "memories/a" || changes[1].Kind != pb.ChangeKind_CHANGE_KIND_MEMORY_MERGED {
		t.Errorf("the changes are %v", changes)
	}
	w.verified("cubes/c")
}

func TestMergeBackAndForth(t *testing.T) {
	w := start(t, time.Minute)
	w.add(text("a", "one"), text("b", "two"))
	must(w.merge("b", "a"))(t)
	must(w.merge("a", "b"))(t) // a was MERGED into b; absorbing b makes it ACTIVE.
	a, b := w.get("a"), w.get("b")
	if a.State != active || a.MergedInto != "" || b.State != merged || b.MergedInto != memoryName("a") {
		t.Errorf("a is %v into %q, b is %v into %q", a.State, a.MergedInto, b.State, b.MergedInto)
	}
	must(w.transition(active, "b"))(t)
	if b := w.get("b"); b.MergedInto != "" {
		t.Errorf("leaving MERGED kept %q", b.MergedInto)
	}
	w.verified("cubes/c")
}

func TestMergeIntoANewMemory(t *testing.T) {
	w := start(t, time.Minute)
	w.add(text("a", "one"), text("b", "two"))
	out := must(w.memories.MergeMemories(w.ctx, &pb.MergeMemoriesRequest{
		Parent: "cubes/c", Sources: []string{memoryName("a"), memoryName("b")}, Merged: text("ab", "one and two"),
	}))(t)
	if out.Memory.Name != memoryName("ab") || len(out.Memory.Provenance) != 2 {
		t.Errorf("got %v", out.Memory)
	}
}

func TestMergeRefuses(t *testing.T) {
	w := start(t, time.Minute)
	w.add(text("a", "one"), text("b", "two"), text("d", "gone"), text("p", "erased"), text("m", "absorbed"))
	must(w.transition(deleted, "d"))(t)
	must(w.merge("a", "m"))(t)
	purge := w.purge("p").Commit.Revision
	head := w.head()

	if got := refused(w.merge("a", "d"))(t, "INVALID_TRANSITION"); got["state"] != "DELETED" {
		t.Errorf("metadata %v", got)
	}
	refused(w.merge("a", "b", "m"))(t, "INVALID_TRANSITION")
	refused(w.merge("d", "b"))(t, "INVALID_TRANSITION")
	if got := refused(w.merge("a", "p"))(t, "MEMORY_PURGED"); got["revision"] != itoa(purge) {
		t.Errorf("metadata %v", got)
	}
	refused(w.merge("a", "a"))(t, "CONFLICTING_ARGUMENTS")
	refused(w.merge("a", "b", "b"))(t, "INVALID_NAME")
	refused(w.merge("absent", "b"))(t, "MEMORY_NOT_FOUND")
	refused(w.memories.MergeMemories(w.ctx, &pb.MergeMemoriesRequest{Parent: "cubes/c", Sources: []string{memoryName("b")}}))(t, "FIELD_REQUIRED")
	if w.head() != head || w.get("b").State != active {
		t.Error("a refused merge changed something")
	}
}

func TestProvenanceRaisesTheLevel(t *testing.T) {
	w := start(t, time.Minute)
	secret := text("s", "secret")
	secret.Sensitivity = pb.Sensitivity_SENSITIVITY_SECRET
	derived, further := text("d", "derived"), text("f", "further")
	derived.Provenance = []*pb.Provenance{{Kind: pb.ProvenanceKind_PROVENANCE_KIND_MEMORY, Source: memoryName("s")}}
	further.Provenance = []*pb.Provenance{{Kind: pb.ProvenanceKind_PROVENANCE_KIND_MEMORY, Source: memoryName("d")}}
	w.add(further, derived, secret) // All in one batch, the sources last.
	if got := w.get("f").Sensitivity; got != pb.Sensitivity_SENSITIVITY_SECRET {
		t.Errorf("got %v", got)
	}
	lower := &pb.Memory{Name: memoryName("d"), Sensitivity: pb.Sensitivity_SENSITIVITY_PUBLIC}
	updated := must(w.memories.UpdateMemory(w.ctx, &pb.UpdateMemoryRequest{Memory: lower}))(t)
	if updated.Memory.Sensitivity != pb.Sensitivity_SENSITIVITY_SECRET || updated.Commit.ChangeCount != 0 {
		t.Errorf("an update lowered the level: %v", updated)
	}
}

func TestUpdateMasks(t *testing.T) {
	w := start(t, time.Minute)
	first := text("a", "tea")
	first.Tags, first.Confidence = []string{"x"}, proto.Float64(0.5)
	first.GetPlaintext().Kind = "fact"
	w.add(first)
	update := func(m *pb.Memory, paths ...string) (*pb.UpdateMemoryResponse, error) {
		r := &pb.UpdateMemoryRequest{Memory: m}
		if paths != nil {
			r.UpdateMask = mask(paths...)
		}
		return w.memories.UpdateMemory(w.ctx, r)
	}
	got := must(update(&pb.Memory{Name: memoryName("a"), Tags: []string{"ignored"}}, "plaintext.kind", "confidence"))(t).Memory
	if got.GetPlaintext().Kind != "" || got.GetPlaintext().Text != "tea" || got.Confidence != nil || got.Tags[0] != "x" {
		t.Errorf("got %v", got)
	}
	got = must(update(&pb.Memory{Name: memoryName("a"), Tags: []string{"z", "y", "z"}}))(t).Memory
	if len(got.Tags) != 2 || got.Tags[0] != "y" || got.GetPlaintext() == nil {
		t.Errorf("got %v", got)
	}
	refused(update(&pb.Memory{Name: memoryName("a")}, "plaintext.text"))(t, "FIELD_REQUIRED")
	for _, path := range []string{"uid", "name", "state", "plaintext.nothing", "nothing", "extension.data", ""} {
		refused(update(text("a", "x"), "tags", path))(t, "INVALID_MASK")
	}
	got = must(update(&pb.Memory{
		Name: memoryName("a"), Payload: &pb.Memory_Extension{Extension: &pb.Extension{Type: "org.example", Data: []byte{1}}},
	}, "*"))(t).Memory
	if got.GetExtension() == nil || len(got.Tags) != 0 || got.Owner != principal {
		t.Errorf("got %v", got)
	}
	head := w.head()
	if again := must(update(got, "*"))(t); again.Commit.ChangeCount != 0 || again.Memory.Revision != head || again.Commit.Revision != head+1 {
		t.Errorf("an update to what is there is %v", again)
	}
	refused(update(&pb.Memory{Name: memoryName("a"), Etag: "old"}))(t, "ETAG_MISMATCH")
	w.verified("cubes/c")
}
