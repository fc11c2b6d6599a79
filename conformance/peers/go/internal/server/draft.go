package server

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/digest"
)

// draft collects the changes of one commit. Nothing of it is seen before finish, which cannot fail: all checks come before.
type draft struct {
	cube     *cube
	revision int64
	time     *timestamppb.Timestamp
	changes  []*pb.Change
	effects  []func(made *commit)
}

func commitName(c *cube, revision int64) string {
	return fmt.Sprintf("%s/commits/%d", c.name(), revision)
}

// begin starts the next commit of a cube; its time is later than that of the commit before, whatever the clock says.
func begin(c *cube) *draft {
	at := timestamppb.New(time.Now().UTC().Truncate(time.Microsecond))
	if len(c.commits) > 0 {
		if next := digest.Next(c.head().header.CreateTime); at.AsTime().Before(next.AsTime()) {
			at = next
		}
	}
	return &draft{cube: c, revision: c.revision() + 1, time: at}
}

// put gives a memory a new version; a memory without versions is added.
func (d *draft) put(kind pb.ChangeKind, m *memory, v *version) {
	v.revision, v.time = d.revision, d.time
	change := &pb.Change{
		Kind: kind, Name: "memories/" + m.id, Uid: m.uid,
		AfterCommitment: v.commitment(), AfterState: v.state, Sensitivity: v.sensitivity, Owner: v.owner,
	}
	if v.mergedInto != "" {
		change.MergedInto = "memories/" + v.mergedInto
	}
	if len(m.versions) > 0 {
		change.BeforeCommitment, change.BeforeState = m.now().commitment(), m.now().state
	}
	d.changes = append(d.changes, change)
	d.effects = append(d.effects, func(*commit) {
		if len(m.versions) == 0 {
			m.created, m.place = d.time, len(d.cube.order)
			d.cube.memories[m.id] = m
			d.cube.order = append(d.cube.order, m)
		}
		m.versions = append(m.versions, v)
	})
}

// putSettings gives the cube new settings or another state.
func (d *draft) putSettings(kind pb.ChangeKind, next *settings) {
	c := d.cube
	next.revision = d.revision
	change := &pb.Change{Kind: kind, Uid: c.uid, AfterState: next.state, Owner: c.owner}
	if next.sealed != nil {
		change.AfterCommitment = next.sealed.commitment
	}
	if len(c.settings) > 0 {
		before := c.now()
		change.BeforeState = before.state
		if before.sealed != nil {
			change.BeforeCommitment = before.sealed.commitment
		}
	}
	d.changes = append(d.changes, change)
	d.effects = append(d.effects, func(*commit) { c.settings = append(c.settings, next) })
}

// putSession adds a session; ended says that it has ended already, as a fork's may have.
func (d *draft) putSession(t *session, ended bool) {
	change := &pb.Change{
		Kind: pb.ChangeKind_CHANGE_KIND_SESSION_CREATED, Name: "sessions/" + t.id, Uid: t.uid,
		AfterCommitment: t.sealed.commitment, AfterState: active, Owner: t.owner,
	}
	if ended {
		change.AfterState = archived
	}
	d.changes = append(d.changes, change)
	d.effects = append(d.effects, func(made *commit) {
		t.created, t.place = made, len(d.cube.talks)
		if ended {
			t.ended = made
		}
		d.cube.sessions[t.id] = t
		d.cube.talks = append(d.cube.talks, t)
	})
}

func (d *draft) endSession(t *session) {
	d.changes = append(d.changes, &pb.Change{
		Kind: pb.ChangeKind_CHANGE_KIND_SESSION_ENDED, Name: "sessions/" + t.id, Uid: t.uid,
		BeforeCommitment: t.sealed.commitment, AfterCommitment: t.sealed.commitment,
		BeforeState: active, AfterState: archived, Owner: t.owner,
	})
	d.effects = append(d.effects, func(made *commit) { t.ended = made })
}

// finish seals the commit and makes it the head.
func (d *draft) finish(request proto.Message, cause string, heads ...*pb.Head) *commit {
	c := d.cube
	header := &pb.CommitHeader{
		CubeUid: c.uid, Revision: d.revision, MergedHeads: heads, Principal: principal, Cause: cause,
		CreateTime: d.time, RequestId: requestID(request), ChangeCount: int64(len(d.changes)),
	}
	if len(c.commits) > 0 {
		header.ParentDigest = c.head().digest
	}
	made := &commit{header: header}
	for _, change := range d.changes {
		made.changes = append(made.changes, digest.Serialize(change))
	}
	header.ChangesDigest = digest.Changes(made.changes)
	made.sealed = digest.Serialize(header)
	made.digest = digest.Commit(made.sealed)
	for _, effect := range d.effects {
		effect(made)
	}
	c.commits = append(c.commits, made)
	close(c.moved)
	c.moved = make(chan struct{})
	return made
}
