package server

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/digest"
)

func TestWatchIsGapless(t *testing.T) {
	w := start(t, time.Minute)
	for i := range 5 {
		w.add(text(fmt.Sprint("m", i), "words"))
	}
	stream := must(w.cubes.WatchCube(w.ctx, &pb.WatchCubeRequest{Name: "cubes/c", StartRevision: 2, View: pb.View_VIEW_SEALED}))(t)
	if _, err := stream.Header(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for i := range 5 {
			w.add(text(fmt.Sprint("n", i), "words"))
		}
	}()
	var parent []byte
	heartbeats, changes := 0, 0
	for next := int64(2); next <= 11 || heartbeats == 0; {
		frame := must(stream.Recv())(t)
		switch part := frame.Frame.(type) {
		case *pb.WatchCubeResponse_SealedHeader:
			header := &pb.CommitHeader{}
			if err := proto.Unmarshal(part.SealedHeader, header); err != nil {
				t.Fatal(err)
			}
			if header.Revision != next || parent != nil && string(header.ParentDigest) != string(parent) {
				t.Fatalf("got revision %d, want %d", header.Revision, next)
			}
			parent, changes = digest.Commit(part.SealedHeader), 0
		case *pb.WatchCubeResponse_Changes_:
			changes += len(part.Changes.SealedChanges)
		case *pb.WatchCubeResponse_End_:
			if part.End.Revision != next || changes != 1 {
				t.Fatalf("the end of %d after %d changes, want %d", part.End.Revision, changes, next)
			}
			next++
		case *pb.WatchCubeResponse_Heartbeat_:
			heartbeats++
		}
	}
	late := must(w.cubes.WatchCube(w.ctx, &pb.WatchCubeRequest{Name: "cubes/c", StartRevision: 13}))(t)
	refused(late.Recv())(t, "REVISION_NOT_FOUND")
}

func TestASlowWatcherIsEnded(t *testing.T) {
	w := start(t, 200*time.Millisecond)
	// More than the window of the stream takes.
	for range 3 {
		var many []*pb.Memory
		for range 1000 {
			m := text("x", "words")
			m.Name = ""
			many = append(many, m)
		}
		w.add(many...)
	}
	stream := must(w.cubes.WatchCube(w.ctx, &pb.WatchCubeRequest{Name: "cubes/c", StartRevision: 1}))(t)
	time.Sleep(2 * time.Second)
	last := int64(0)
	for {
		frame, err := stream.Recv()
		if err == nil {
			if end := frame.GetEnd(); end != nil {
				last = end.Revision
			}
			continue
		}
		if got := refused(frame, err)(t, "WATCH_TOO_SLOW"); got["last_revision"] != itoa(last) {
			t.Errorf("metadata %v, the last end was %d", got, last)
		}
		return
	}
}

func TestVerifyFindsWhatWasChanged(t *testing.T) {
	for kind, spoil := range map[string]func(c *cube){
		"chain":   func(c *cube) { c.commits[1].sealed[40] ^= 1 },
		"changes": func(c *cube) { c.commits[2].changes = c.commits[1].changes },
		"content": func(c *cube) { c.memories["a"].now().content.payload[5] ^= 1 },
		"state":   func(c *cube) { c.memories["a"].now().state = archived },
	} {
		w := start(t, time.Minute)
		w.add(text("a", "tea"))
		w.add(text("b", "milk"))
		w.verified("cubes/c")
		spoil(w.server.cubes["c"])
		out := must(w.cubes.VerifyCube(w.ctx, &pb.VerifyCubeRequest{Name: "cubes/c"}))(t)
		found := false
		for _, finding := range out.Findings {
			found = found || finding.Kind == kind
		}
		if out.Valid || !found {
			t.Errorf("%s: got %v", kind, out)
		}
	}
}

func TestVerifyAgainstARememberedHead(t *testing.T) {
	w := start(t, time.Minute)
	head := w.add(text("a", "tea")).Commit
	w.add(text("b", "milk"))
	for want, r := range map[bool]*pb.VerifyCubeRequest{
		true:  {ExpectedRevision: head.Revision, ExpectedHeadDigest: head.Digest},
		false: {ExpectedRevision: head.Revision + 1, ExpectedHeadDigest: head.Digest},
	} {
		r.Name = "cubes/c"
		if out := must(w.cubes.VerifyCube(w.ctx, r))(t); out.Valid != want {
			t.Errorf("got %v", out)
		}
	}
	cut := must(w.cubes.VerifyCube(w.ctx, &pb.VerifyCubeRequest{Name: "cubes/c", ExpectedRevision: 9, ExpectedHeadDigest: head.Digest}))(t)
	if cut.Valid || cut.Findings[0].Kind != "head" {
		t.Errorf("got %v", cut)
	}
}
