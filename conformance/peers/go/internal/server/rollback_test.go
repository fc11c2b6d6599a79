package server

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "mip.example/peer/gen/mip/v1"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

func (w *world) update(m *pb.Memory) *pb.Memory {
	w.t.Helper()
	return must(w.memories.UpdateMemory(w.ctx, &pb.UpdateMemoryRequest{Memory: m}))(w.t).Memory
}

// picture is what a rollback restores of a memory: all but its version and what names that.
func (w *world) picture(id string) string {
	m := proto.Clone(w.get(id)).(*pb.Memory)
	m.Revision, m.Etag, m.UpdateTime = 0, "", nil
	return fmt.Sprint(m)
}

func TestRollbackUndoesEverythingAndItself(t *testing.T) {
	w := start(t, time.Minute)
	vector := &pb.Vector{Model: "m", Dtype: pb.Dtype_DTYPE_FLOAT16, Dimension: 2, Data: []byte{0, 0x3c, 0, 0}}
	kept := text("kept", "stays")
	updated := text("updated", "before")
	updated.Vectors = []*pb.Vector{vector}
	w.add(kept, updated, text("source", "absorbed"), text("target", "absorbs"), text("archived", "x"), text("deleted", "x"))
	must(w.transition(deleted, "deleted"))(t)
	ids := []string{"kept", "updated", "source", "target", "archived", "deleted"}
	to := w.head()
	before := map[string]string{}
	for _, id := range ids {
		before[id] = w.picture(id)
	}

	change := text("updated", "after")
	change.Owner, change.Vectors = "principals/other", []*pb.Vector{{Dimension: 2, Data: []byte{0, 0, 0, 0, 0, 0, 0x80, 0x3f}}}
	w.update(change)
	must(w.merge("target", "source"))(t)
	must(w.transition(archived, "archived"))(t)
	must(w.transition(active, "deleted"))(t)
	w.add(text("added", "since"))
	must(w.cubes.UpdateCube(w.ctx, &pb.UpdateCubeRequest{Cube: &pb.Cube{Name: "cubes/c", DisplayName: "second"}}))(t)
	ids = append(ids, "added")
	later := w.head()
	after := map[string]string{}
	for _, id := range ids {
		after[id] = w.picture(id)
	}

	out := w.rollBack(to)
	for id, want := range before {
		if got := w.picture(id); got != want {
			t.Errorf("%s is\n%s, was\n%s", id, got, want)
		}
	}
	if got := w.get("added").State; got != deleted {
		t.Errorf("what was added since is %v", got)
	}
	if w.get("kept").Revision != 2 || out.Commit.ChangeCount != 7 { // Five memories, the added one, the settings.
		t.Errorf("the rollback has %d changes, kept is at %d", out.Commit.ChangeCount, w.get("kept").Revision)
	}
	if out.Cube.DisplayName != "first" || out.Commit.Cause != "rollback to revision "+itoa(to) {
		t.Errorf("got %v", out)
	}
	out = w.rollBack(later)
	for id, want := range after {
		if got := w.picture(id); got != want {
			t.Errorf("after rolling back the rollback, %s is\n%s, was\n%s", id, got, want)
		}
	}
	if out.Cube.DisplayName != "second" {
		t.Errorf("got %v", out.Cube)
	}
	w.verified("cubes/c")
}

func TestRollbackRestoresNothingPurgedAndLowersNoLevel(t *testing.T) {
	w := start(t, time.Minute)
	w.add(text("p", "erased later"), text("early", "erased before"), text("s", "raised"))
	w.purge("early")
	to := w.head()
	purge := w.purge("p").Commit.Revision
	w.update(&pb.Memory{Name: memoryName("s"), Sensitivity: pb.Sensitivity_SENSITIVITY_SECRET})
	w.update(text("s", "changed"))

	out := w.rollBack(to)
	if len(out.SkippedPurges) != 1 || out.SkippedPurges[0].Name != memoryName("p") || out.SkippedPurges[0].PurgeRevision != purge {
		t.Errorf("skipped %v", out.SkippedPurges)
	}
	if got := w.get("p"); got.State != purged || got.Revision != purge {
		t.Errorf("the purged memory is %v", got)
	}
	if got := w.get("s"); got.Sensitivity != pb.Sensitivity_SENSITIVITY_SECRET || got.GetPlaintext().Text != "raised" {
		t.Errorf("got %v", got)
	}
	w.verified("cubes/c")
}

func TestRollbackWithNothingToDo(t *testing.T) {
	w := start(t, time.Minute)
	w.add(text("a", "x"))
	session := must(w.sessions.CreateSession(w.ctx, &pb.CreateSessionRequest{Parent: "cubes/c", SessionId: "s"}))(t)
	out := w.rollBack(w.head() - 1)
	if out.Commit.ChangeCount != 0 || out.Commit.Revision != 4 {
		t.Errorf("got %v", out.Commit)
	}
	if got := must(w.sessions.GetSession(w.ctx, &pb.GetSessionRequest{Name: session.Session.Name}))(t); got.Session.State != active {
		t.Errorf("the session is %v", got)
	}
	for revision, want := range map[int64]string{0: "FIELD_REQUIRED", -1: "INVALID_FIELD", 99: "REVISION_NOT_FOUND"} {
		refused(w.cubes.RollbackCube(w.ctx, &pb.RollbackCubeRequest{Name: "cubes/c", ToRevision: revision}))(t, want)
	}
}

func TestForkCarriesContentAsItIs(t *testing.T) {
	w := start(t, time.Minute)
	w.add(text("a", "x"), text("b", "y"), text("late", "later deleted"), text("p", "erased"), text("into", "erased too"))
	must(w.sessions.CreateSession(w.ctx, &pb.CreateSessionRequest{Parent: "cubes/c", SessionId: "s"}))(t)
	must(w.merge("b", "a"))(t)
	must(w.merge("into", "late"))(t)
	revision := w.head()
	w.update(&pb.Memory{Name: memoryName("b"), Sensitivity: pb.Sensitivity_SENSITIVITY_SECRET})
	must(w.sessions.EndSession(w.ctx, &pb.EndSessionRequest{Name: "cubes/c/sessions/s"}))(t)
	w.purge("p", "into")
	out := must(w.cubes.ForkCube(w.ctx, &pb.ForkCubeRequest{Name: "cubes/c", CubeId: "f", Revision: revision}))(t)

	get := func(id string) *pb.Memory {
		return must(w.memories.GetMemory(w.ctx, &pb.GetMemoryRequest{Name: "cubes/f/memories/" + id}))(t).Memory
	}
	a, b, late := get("a"), get("b"), get("late")
	if a.State != merged || a.MergedInto != "cubes/f/memories/b" || a.Uid != w.get("a").Uid {
		t.Errorf("a is %v", a)
	}
	if string(b.Commitment) != string(w.get("b").Commitment) || b.Sensitivity != pb.Sensitivity_SENSITIVITY_SECRET {
		t.Errorf("b is %v", b)
	}
	if late.State != active || late.MergedInto != "" {
		t.Errorf("a memory whose absorbing one is erased is %v", late)
	}
	refused(w.memories.GetMemory(w.ctx, &pb.GetMemoryRequest{Name: "cubes/f/memories/p"}))(t, "MEMORY_NOT_FOUND")
	heads := out.Commit.MergedHeads
	source := must(w.cubes.GetCommit(w.ctx, &pb.GetCommitRequest{Name: "cubes/c/commits/" + itoa(revision)}))(t).Commit
	if len(heads) != 1 || heads[0].CubeUid != source.CubeUid || string(heads[0].Digest) != string(source.Digest) {
		t.Errorf("the fork's heads are %v", heads)
	}
	talk := must(w.sessions.GetSession(w.ctx, &pb.GetSessionRequest{Name: "cubes/f/sessions/s"}))(t).Session
	if talk.State != active {
		t.Errorf("the session, which went on at that revision, is %v", talk)
	}
	if derived := w.purge("a").Derived; len(derived) < 1 || derived[0] != "cubes/f" {
		t.Errorf("the purge names %v", derived)
	}
	if got := get("a").GetPlaintext().GetText(); got != "x" {
		t.Errorf("a purge in the source reached the fork: %q", got)
	}
	w.verified("cubes/c")
	w.verified("cubes/f")
}
