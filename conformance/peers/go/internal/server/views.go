package server

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "mip.example/peer/gen/mip/v1"
)

// view is a memory as a version has it. Of a purged memory only name, uid, state and the purging revision remain, whatever
// the version.
func (s *Server) view(c *cube, m *memory, v *version) *pb.Memory {
	name := c.name() + "/memories/" + m.id
	if m.purged() {
		return &pb.Memory{Name: name, Uid: m.uid, State: purged, Revision: m.now().revision}
	}
	out := proto.Clone(v.content.memory).(*pb.Memory)
	out.Name, out.Uid, out.State, out.Revision = name, m.uid, v.state, v.revision
	out.Etag = s.etag(m.uid, v.revision)
	if v.mergedInto != "" {
		out.MergedInto = c.name() + "/memories/" + v.mergedInto
	}
	out.Sensitivity, out.Owner = v.sensitivity, v.owner
	out.CreateTime, out.UpdateTime = stamp(m.created), stamp(v.time)
	out.Commitment = v.commitment()
	return out
}

func stamp(at *timestamppb.Timestamp) *timestamppb.Timestamp {
	return &timestamppb.Timestamp{Seconds: at.Seconds, Nanos: at.Nanos}
}

// cubeView is a cube as it is now.
func (s *Server) cubeView(c *cube) *pb.Cube {
	now, head := c.now(), c.head()
	out := &pb.Cube{}
	if now.content != nil {
		out.DisplayName = now.content.DisplayName
		out.Labels = proto.Clone(now.content).(*pb.CubeContent).Labels
		out.EmbeddingModel = now.content.EmbeddingModel
		out.PlaintextProfile = now.content.PlaintextProfile
		out.EmbeddingDimension = now.content.EmbeddingDimension
	}
	out.Name, out.Uid, out.Owner, out.State = c.name(), c.uid, c.owner, now.state
	out.Revision, out.HeadDigest = c.revision(), head.digest
	out.Etag = s.etag(c.uid, now.revision)
	out.CreateTime, out.UpdateTime = stamp(c.commits[0].header.CreateTime), stamp(head.header.CreateTime)
	return out
}

// commitView is a commit for reading. The caller sees everything, so the count is that of all changes.
func (c *cube) commitView(made *commit) *pb.Commit {
	h := proto.Clone(made.header).(*pb.CommitHeader)
	return &pb.Commit{
		CubeUid: h.CubeUid, Revision: h.Revision, ParentDigest: h.ParentDigest, MergedHeads: h.MergedHeads,
		Principal: h.Principal, Cause: h.Cause, CreateTime: h.CreateTime, RequestId: h.RequestId,
		ChangeCount: h.ChangeCount, ChangesDigest: h.ChangesDigest,
		Name: commitName(c, h.Revision), Digest: made.digest,
	}
}

func (c *cube) sessionView(t *session) *pb.Session {
	out := &pb.Session{
		Name: c.name() + "/sessions/" + t.id, Uid: t.uid, Owner: t.owner, State: active,
		CreateTime: stamp(t.created.header.CreateTime), Revision: t.created.header.Revision,
	}
	if t.content != nil {
		copied := proto.Clone(t.content).(*pb.SessionContent)
		out.DisplayName, out.Participants, out.Labels = copied.DisplayName, copied.Participants, copied.Labels
	}
	if t.ended != nil {
		out.State, out.Revision = archived, t.ended.header.Revision
		out.EndTime = stamp(t.ended.header.CreateTime)
	}
	return out
}
