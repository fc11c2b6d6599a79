package server

import (
	"context"
	"slices"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/mip"
)

// newID makes a UUIDv7, for ids that the caller leaves to the server and for uids.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

// newCube makes an empty cube that is not registered yet. Ids are never used again, whatever became of their cube.
func (s *Server) newCube(id string) (*cube, error) {
	if id == "" {
		id = newID()
	}
	if s.cubes[id] != nil {
		return nil, mip.Refuse(pb.ErrorReason_ERROR_REASON_ALREADY_EXISTS, "cubes/%s exists or existed", id)
	}
	return &cube{
		id: id, uid: newID(), owner: principal, place: len(s.order),
		memories: map[string]*memory{}, sessions: map[string]*session{}, moved: make(chan struct{}),
	}, nil
}

func (s *Server) addCube(c *cube) {
	s.cubes[c.id] = c
	s.order = append(s.order, c)
}

func sealSettings(message *pb.CubeContent) *settings {
	made := seal(message)
	return &settings{state: active, sealed: &made, content: message}
}

// checkSettings checks a new cube's settings and fills in the defaults.
func checkSettings(asked *pb.Cube) (*pb.CubeContent, error) {
	out := &pb.CubeContent{
		DisplayName: asked.GetDisplayName(), Labels: asked.GetLabels(), EmbeddingModel: asked.GetEmbeddingModel(),
		PlaintextProfile: asked.GetPlaintextProfile(), EmbeddingDimension: asked.GetEmbeddingDimension(),
	}
	out = proto.Clone(out).(*pb.CubeContent)
	if err := sortLabels(out.Labels, "cube"); err != nil {
		return nil, err
	}
	if out.EmbeddingModel == "" {
		out.EmbeddingModel = noModel
	}
	const field = "cube.embedding_dimension"
	switch {
	case out.EmbeddingModel == noModel && out.EmbeddingDimension != 0:
		return nil, mip.Field(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, field, "a cube without a model has no vectors")
	case out.EmbeddingModel != noModel && out.EmbeddingDimension == 0:
		return nil, mip.Field(pb.ErrorReason_ERROR_REASON_FIELD_REQUIRED, field, "the server lacks the model, so its dimension must be said")
	case out.EmbeddingDimension > 8192:
		return nil, mip.Field(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, field, "must be at most 8192")
	}
	switch out.PlaintextProfile {
	case "":
		out.PlaintextProfile = "general"
	case "general", "tree":
	default:
		return nil, mip.Field(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, "cube.plaintext_profile", "must be `general` or `tree`")
	}
	return out, nil
}

// CreateCube makes a cube with its first commit.
func (s *Server) CreateCube(ctx context.Context, r *pb.CreateCubeRequest) (*pb.CreateCubeResponse, error) {
	return mutate(ctx, s, "CreateCube", "", r, func() (*pb.CreateCubeResponse, error) {
		c, err := s.newCube(r.CubeId)
		if err != nil {
			return nil, err
		}
		asked, err := checkSettings(r.GetCube())
		if err != nil {
			return nil, err
		}
		d := begin(c)
		d.putSettings(pb.ChangeKind_CHANGE_KIND_CUBE_CREATED, sealSettings(asked))
		made := d.finish(r, "create cube")
		s.addCube(c)
		return &pb.CreateCubeResponse{Cube: s.cubeView(c), Commit: c.commitView(made)}, nil
	})
}

// GetCube returns a cube in any state.
func (s *Server) GetCube(_ context.Context, r *pb.GetCubeRequest) (*pb.GetCubeResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, err := s.cube(r.Name)
	if err != nil {
		return nil, err
	}
	return &pb.GetCubeResponse{Cube: s.cubeView(c)}, nil
}

// ListCubes returns the cubes in the order of their creation.
func (s *Server) ListCubes(ctx context.Context, r *pb.ListCubesRequest) (*pb.ListCubesResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	at, err := s.open(r, place{})
	if err != nil {
		return nil, err
	}
	out := &pb.ListCubesResponse{}
	out.NextPageToken, err = s.page(ctx, r, at, 50, maxPageSize, func(position int64) int {
		if position >= int64(len(s.order)) {
			return -1
		}
		c := s.order[position]
		if c.now().state != active && !r.ShowDeleted {
			return 0
		}
		out.Cubes = append(out.Cubes, s.cubeView(c))
		return proto.Size(out.Cubes[len(out.Cubes)-1])
	}, last(&out.Cubes))
	return out, err
}

// cubePaths are the fields of a cube that UpdateCube changes.
var cubePaths = []string{"display_name", "labels"}

// UpdateCube changes display name or labels.
func (s *Server) UpdateCube(ctx context.Context, r *pb.UpdateCubeRequest) (*pb.UpdateCubeResponse, error) {
	if r.Cube.Name == "" {
		return nil, mip.Field(pb.ErrorReason_ERROR_REASON_FIELD_REQUIRED, "cube.name", "must not be empty")
	}
	return mutate(ctx, s, "UpdateCube", r.Cube.Name, r, func() (*pb.UpdateCubeResponse, error) {
		c, err := s.liveCube(r.Cube.Name)
		if err != nil {
			return nil, err
		}
		paths := r.GetUpdateMask().GetPaths()
		if len(paths) == 1 && paths[0] == "*" {
			paths = cubePaths
		}
		for _, path := range paths {
			if !slices.Contains(cubePaths, path) {
				return nil, invalidMask(path)
			}
		}
		if err := s.checkEtag(r.Cube.Etag, c.uid, c.now().revision); err != nil {
			return nil, err
		}
		next := proto.Clone(c.now().content).(*pb.CubeContent)
		if slices.Contains(paths, "display_name") || len(paths) == 0 && r.Cube.DisplayName != "" {
			next.DisplayName = r.Cube.DisplayName
		}
		if slices.Contains(paths, "labels") || len(paths) == 0 && len(r.Cube.Labels) > 0 {
			next.Labels = proto.Clone(r.Cube).(*pb.Cube).Labels
		}
		if err := mip.Check(&pb.Cube{Labels: next.Labels}, "cube", ""); err != nil {
			return nil, err
		}
		if err := sortLabels(next.Labels, "cube"); err != nil {
			return nil, err
		}
		d := begin(c)
		if !proto.Equal(next, c.now().content) {
			d.putSettings(pb.ChangeKind_CHANGE_KIND_CUBE_UPDATED, sealSettings(next))
		}
		made := d.finish(r, "update cube")
		return &pb.UpdateCubeResponse{Cube: s.cubeView(c), Commit: c.commitView(made)}, nil
	})
}

func invalidMask(path string) error {
	return mip.Field(pb.ErrorReason_ERROR_REASON_INVALID_MASK, "update_mask", "%q does not exist or cannot be updated", path)
}

// DeleteCube marks a cube deleted.
func (s *Server) DeleteCube(ctx context.Context, r *pb.DeleteCubeRequest) (*pb.DeleteCubeResponse, error) {
	return mutate(ctx, s, "DeleteCube", r.Name, r, func() (*pb.DeleteCubeResponse, error) {
		c, err := s.liveCube(r.Name)
		if err != nil {
			return nil, err
		}
		if err := c.expect(r.ExpectedRevision); err != nil {
			return nil, err
		}
		if err := s.checkEtag(r.Etag, c.uid, c.now().revision); err != nil {
			return nil, err
		}
		d := begin(c)
		d.putSettings(pb.ChangeKind_CHANGE_KIND_CUBE_DELETED, &settings{state: deleted, sealed: c.now().sealed, content: c.now().content})
		made := d.finish(r, "delete cube")
		return &pb.DeleteCubeResponse{Cube: s.cubeView(c), Commit: c.commitView(made)}, nil
	})
}

// UndeleteCube restores a deleted cube; one that is not deleted gets a commit that changes nothing.
func (s *Server) UndeleteCube(ctx context.Context, r *pb.UndeleteCubeRequest) (*pb.UndeleteCubeResponse, error) {
	return mutate(ctx, s, "UndeleteCube", r.Name, r, func() (*pb.UndeleteCubeResponse, error) {
		c, err := s.cube(r.Name)
		if err != nil {
			return nil, err
		}
		if err := c.live(); c.now().state == purged {
			return nil, err
		}
		d := begin(c)
		if c.now().state == deleted {
			d.putSettings(pb.ChangeKind_CHANGE_KIND_CUBE_UNDELETED, &settings{state: active, sealed: c.now().sealed, content: c.now().content})
		}
		made := d.finish(r, "undelete cube")
		return &pb.UndeleteCubeResponse{Cube: s.cubeView(c), Commit: c.commitView(made)}, nil
	})
}
