package server

import (
	"context"
	"slices"
	"strings"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/mip"
)

// putPurge marks a memory purged; erase drops its content once the commit is made.
func (d *draft) putPurge(m *memory) {
	now := m.now()
	d.put(pb.ChangeKind_CHANGE_KIND_MEMORY_PURGED, m, &version{state: purged, sensitivity: now.sensitivity, owner: now.owner})
	d.effects = append(d.effects, func(*commit) {
		for _, v := range m.versions {
			v.content, v.vectors = nil, nil
		}
	})
}

// PurgeMemories erases all versions of memories. Nothing is on disk, so there is no job.
func (s *Server) PurgeMemories(ctx context.Context, r *pb.PurgeMemoriesRequest) (*pb.PurgeMemoriesResponse, error) {
	return mutate(ctx, s, "PurgeMemories", r.Parent, r, func() (*pb.PurgeMemoriesResponse, error) {
		c, err := s.liveCube(r.Parent)
		if err != nil {
			return nil, err
		}
		found, err := c.findAll(r.Names, "names")
		if err != nil {
			return nil, err
		}
		if err := c.expect(r.ExpectedRevision); err != nil {
			return nil, err
		}
		d := begin(c)
		for _, m := range found {
			if err := c.refusePurged(m); err != nil {
				return nil, err
			}
			d.putPurge(m)
		}
		derived := s.derived(c, found)
		made := d.finish(r, r.Reason)
		s.scrub()
		return &pb.PurgeMemoriesResponse{Commit: c.commitView(made), Derived: derived}, nil
	})
}

// PurgeCube erases the content of every memory, the settings, and what sessions say.
func (s *Server) PurgeCube(ctx context.Context, r *pb.PurgeCubeRequest) (*pb.PurgeCubeResponse, error) {
	return mutate(ctx, s, "PurgeCube", r.Name, r, func() (*pb.PurgeCubeResponse, error) {
		c, err := s.cube(r.Name)
		if err != nil {
			return nil, err
		}
		if err := c.live(); c.now().state == purged {
			return nil, err
		}
		if err := c.expect(r.ExpectedRevision); err != nil {
			return nil, err
		}
		d := begin(c)
		var erased []*memory
		for _, m := range c.order {
			if !m.purged() {
				d.putPurge(m)
				erased = append(erased, m)
			}
		}
		derived := slices.DeleteFunc(s.derived(c, erased), func(name string) bool { return strings.HasPrefix(name, c.name()+"/") })
		d.putSettings(pb.ChangeKind_CHANGE_KIND_CUBE_PURGED, &settings{state: purged})
		made := d.finish(r, r.Reason)
		for _, before := range c.settings {
			before.sealed, before.content = nil, nil
		}
		for _, t := range c.talks {
			t.sealed.payload, t.sealed.salt, t.content = nil, nil, nil
		}
		s.scrub()
		return &pb.PurgeCubeResponse{Cube: s.cubeView(c), Commit: c.commitView(made), Derived: derived}, nil
	})
}

// derived names what derives from memories that are about to be erased: memories whose provenance names them, directly or
// over others, and forks that hold copies of them.
func (s *Server) derived(c *cube, erased []*memory) []string {
	known, uids := map[string]bool{}, map[string]bool{}
	for _, m := range erased {
		known[c.name()+"/memories/"+m.id] = true
		uids[m.uid] = true
	}
	var names []string
	for _, other := range s.order {
		if other.descends(c) && slices.ContainsFunc(other.order, func(m *memory) bool { return uids[m.uid] && !m.purged() }) {
			names = append(names, other.name())
		}
	}
	for grown := true; grown; {
		grown = false
		for _, other := range s.order {
			for _, m := range other.order {
				if name := other.name() + "/memories/" + m.id; !known[name] && m.namesAny(known) {
					known[name], grown = true, true
					names = append(names, name)
				}
			}
		}
	}
	return names
}

func (c *cube) descends(from *cube) bool {
	for at := c.source; at != nil; at = at.source {
		if at == from {
			return true
		}
	}
	return false
}

// namesAny says whether the provenance of any version names one of the memories.
func (m *memory) namesAny(names map[string]bool) bool {
	return slices.ContainsFunc(m.versions, func(v *version) bool {
		return v.content != nil && slices.ContainsFunc(v.content.memory.GetProvenance(), func(p *pb.Provenance) bool {
			return p.GetKind() == pb.ProvenanceKind_PROVENANCE_KIND_MEMORY && names[p.GetSource()]
		})
	})
}

func (c *cube) refusePurged(m *memory) error {
	if !m.purged() {
		return nil
	}
	return mip.Refuse(pb.ErrorReason_ERROR_REASON_MEMORY_PURGED, "%s/memories/%s is purged", c.name(), m.id).WithRevision(m.now().revision)
}
