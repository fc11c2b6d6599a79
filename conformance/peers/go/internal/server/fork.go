package server

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "mip.example/peer/gen/mip/v1"
)

// ForkCube makes a new cube from a revision of another. Payloads and salts are carried as they are, so that commitments stay
// equal; what is purged today is left out.
func (s *Server) ForkCube(ctx context.Context, r *pb.ForkCubeRequest) (*pb.ForkCubeResponse, error) {
	return mutate(ctx, s, "ForkCube", r.Name, r, func() (*pb.ForkCubeResponse, error) {
		source, err := s.cube(r.Name)
		if err != nil {
			return nil, err
		}
		revision, err := source.asOf(r.Revision)
		if err != nil {
			return nil, err
		}
		c, err := s.newCube(r.CubeId)
		if err != nil {
			return nil, err
		}
		c.source = source
		d := begin(c)
		then := source.settingsAt(revision)
		next := &settings{state: active, sealed: then.sealed, content: then.content}
		if r.DisplayName != "" && r.DisplayName != then.content.DisplayName {
			renamed := proto.Clone(then.content).(*pb.CubeContent)
			renamed.DisplayName = r.DisplayName
			next = sealSettings(renamed)
		}
		d.putSettings(pb.ChangeKind_CHANGE_KIND_CUBE_CREATED, next)
		forkSessions(d, source, revision)
		forkMemories(d, source, revision)
		// The log of a fork names its source by its uid alone: the name is for those who may read the source.
		made := d.finish(r, fmt.Sprintf("fork of %s at revision %d", source.uid, revision), &pb.Head{
			CubeUid: source.uid, Revision: revision, Digest: source.commits[revision-1].digest,
		})
		s.addCube(c)
		return &pb.ForkCubeResponse{Cube: s.cubeView(c), Commit: c.commitView(made)}, nil
	})
}

func forkSessions(d *draft, source *cube, revision int64) {
	for _, t := range source.talks {
		if t.created.header.Revision > revision {
			continue
		}
		sealed := *t.sealed
		copied := &session{id: t.id, uid: t.uid, owner: t.owner, sealed: &sealed, content: t.content}
		d.putSession(copied, t.ended != nil && t.ended.header.Revision <= revision)
	}
}

func forkMemories(d *draft, source *cube, revision int64) {
	for _, m := range source.order {
		then := m.at(revision)
		if then == nil || m.purged() {
			continue
		}
		next := then.moved(then.state)
		next.sensitivity = max(then.sensitivity, m.now().sensitivity)
		if then.state == merged {
			// An absorbing memory that is purged today is not copied.
			if target := source.memories[then.mergedInto]; target.purged() {
				next.state = active
			} else {
				next.mergedInto = then.mergedInto
			}
		}
		d.put(pb.ChangeKind_CHANGE_KIND_MEMORY_ADDED, &memory{id: m.id, uid: m.uid}, next)
	}
}
