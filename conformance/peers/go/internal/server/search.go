package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/filter"
	"mip.example/peer/internal/mip"
	"mip.example/peer/internal/words"
)

// candidate is a memory that a search may find.
type candidate struct {
	cube    *cube
	memory  *memory
	version *version
	view    *pb.Memory
	score   float64
	matched []string
}

// channel names what scores the hits of a search; the empty one means that everything is found, newest first.
type channel string

const (
	noChannel channel = ""
	lexical   channel = "lexical"
	vectors   channel = "vector"
)

// SearchMemories finds memories by words or by a vector that the caller sends. It reads the record itself, so that no index
// can be stale.
func (s *Server) SearchMemories(ctx context.Context, r *pb.SearchMemoriesRequest) (*pb.SearchMemoriesResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var cubes []*cube
	for i, name := range r.Cubes {
		if slices.Contains(r.Cubes[:i], name) {
			return nil, mip.Field(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, fmt.Sprintf("cubes[%d]", i), "is named twice")
		}
		c, err := s.cube(name)
		if err != nil {
			return nil, err
		}
		cubes = append(cubes, c)
	}
	parsed, err := parseFilter(r.Filter)
	if err != nil {
		return nil, err
	}
	by, err := chooseChannel(r)
	if err != nil {
		return nil, err
	}
	revision, err := searchedRevision(r, cubes)
	if err != nil {
		return nil, err
	}
	var hits []*candidate
	for _, c := range cubes {
		at, err := c.asOf(revision)
		if err != nil {
			return nil, err
		}
		found, err := s.searchCube(ctx, c, at, r, parsed, by)
		if err != nil {
			return nil, err
		}
		hits = append(hits, found...)
	}
	out := rank(hits, r, by)
	if hybrid := r.Mode == pb.SearchMode_SEARCH_MODE_UNSPECIFIED || r.Mode == pb.SearchMode_SEARCH_MODE_HYBRID; hybrid && by == lexical {
		out.Notices = append(out.Notices, "there is no embedder: the search used words alone")
	}
	return out, nil
}

// chooseChannel finds what scores the hits, or why the search cannot be made.
func chooseChannel(r *pb.SearchMemoriesRequest) (channel, error) {
	if r.Rerank != "" {
		return "", unimplemented("the reranker")
	}
	if r.Mode == pb.SearchMode_SEARCH_MODE_GRAPH {
		return "", unimplemented("SEARCH_MODE_GRAPH")
	}
	switch {
	case r.GetVector() != nil && r.Mode == pb.SearchMode_SEARCH_MODE_LEXICAL:
		return "", mip.Field(pb.ErrorReason_ERROR_REASON_CONFLICTING_ARGUMENTS, "vector", "SEARCH_MODE_LEXICAL takes words")
	case r.GetVector() != nil:
		return vectors, nil
	case r.GetQuery() == "":
		return noChannel, nil
	case r.Mode == pb.SearchMode_SEARCH_MODE_VECTOR:
		return "", mip.Refuse(pb.ErrorReason_ERROR_REASON_EMBEDDER_UNAVAILABLE, "there is no embedder for words")
	}
	return lexical, nil
}

// searchedRevision resolves as_of_revision and as_of_time, of which one may be given, for one cube; 0 is the present.
func searchedRevision(r *pb.SearchMemoriesRequest, cubes []*cube) (int64, error) {
	past := r.AsOfRevision != 0 || r.AsOfTime != nil
	if past && len(cubes) > 1 {
		return 0, mip.Field(pb.ErrorReason_ERROR_REASON_CONFLICTING_ARGUMENTS, "cubes", "the past of one cube is searched at a time")
	}
	if r.AsOfRevision != 0 && r.AsOfTime != nil {
		return 0, mip.Field(pb.ErrorReason_ERROR_REASON_CONFLICTING_ARGUMENTS, "as_of_time", "as_of_revision is given too")
	}
	if r.AsOfTime == nil {
		return r.AsOfRevision, nil
	}
	c := cubes[0]
	for i := len(c.commits) - 1; i >= 0; i-- {
		if !c.commits[i].header.CreateTime.AsTime().After(r.AsOfTime.AsTime()) {
			return int64(i + 1), nil
		}
	}
	return 0, mip.Field(pb.ErrorReason_ERROR_REASON_REVISION_NOT_FOUND, "as_of_time", "%s began later", c.name())
}

// searchCube scores what a filter passes at a revision.
func (s *Server) searchCube(ctx context.Context, c *cube, revision int64, r *pb.SearchMemoriesRequest, parsed *filter.Filter, by channel) ([]*candidate, error) {
	var query []float64
	if by == vectors {
		checked, err := c.checkVector(r.GetVector(), "vector")
		if err != nil {
			return nil, err
		}
		query, _ = elements(checked)
	}
	scorer, err := c.scorer(ctx, revision, r.GetQuery())
	if err != nil {
		return nil, err
	}
	var found []*candidate
	for _, m := range c.order {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v := m.at(revision)
		if v == nil {
			break
		}
		hit := &candidate{cube: c, memory: m, version: v}
		switch {
		case !parsed.NamesState() && (m.purged() || v.state != active):
			continue
		case by == lexical && m.purged() || by == vectors && len(v.vectors) == 0:
			continue
		case by == lexical:
			if hit.score, hit.matched = scorer.Score(v.words()); hit.matched == nil {
				continue
			}
		case by == vectors:
			hit.score = -2
			for _, stored := range v.vectors {
				decoded, _ := elements(stored)
				hit.score = max(hit.score, cosine(query, decoded))
			}
		}
		if hit.view = s.view(c, m, v); parsed.Passes(hit.view) {
			found = append(found, hit)
		}
	}
	return found, nil
}

// scorer takes the statistics of words over all memories of a revision that are not erased.
func (c *cube) scorer(ctx context.Context, revision int64, query string) (*words.Scorer, error) {
	if query == "" {
		return nil, nil
	}
	var collection []*words.Document
	for _, m := range c.order {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if v := m.at(revision); v != nil && !m.purged() {
			collection = append(collection, v.words())
		}
	}
	return words.NewScorer(query, collection), nil
}

// words are those that search finds the version by.
func (v *version) words() *words.Document {
	v.content.counting.Do(func() { v.content.document = words.Count(searchedText(v.content.memory)) })
	return v.content.document
}

// searchedText is a plaintext's text with speakers and times of its sources, but for sources that are memories; of other
// payloads their words, tags and labels.
func searchedText(m *pb.Memory) string {
	parts := []string{filter.Words(m)}
	if m.GetPlaintext() == nil {
		parts = append(parts, m.GetTags()...)
		for _, label := range m.GetLabels() {
			parts = append(parts, label.GetKey(), label.GetValue())
		}
		return strings.Join(parts, "\n")
	}
	for _, p := range m.GetProvenance() {
		if p.GetKind() == pb.ProvenanceKind_PROVENANCE_KIND_MEMORY {
			continue
		}
		parts = append(parts, p.GetSpeaker())
		if p.GetTime() != nil {
			parts = append(parts, p.GetTime().AsTime().Format("2006-01-02 15:04:05 Monday 2 January 2006"))
		}
	}
	return strings.Join(parts, "\n")
}

// rank orders candidates and makes hits of the best.
func rank(found []*candidate, r *pb.SearchMemoriesRequest, by channel) *pb.SearchMemoriesResponse {
	slices.SortFunc(found, func(a, b *candidate) int {
		return cmp.Or(
			cmp.Compare(b.score, a.score),
			b.memory.created.AsTime().Compare(a.memory.created.AsTime()),
			cmp.Compare(a.cube.place, b.cube.place),
			cmp.Compare(b.memory.place, a.memory.place),
		)
	})
	most := int(r.TopK)
	if most == 0 {
		most = 10
	}
	most = min(most, maxTopK, len(found))
	out := &pb.SearchMemoriesResponse{}
	bytes := 0
	for i, hit := range found[:most] {
		made := &pb.Hit{Memory: hit.view, Score: hit.score}
		if r.Explain {
			made.Explanation = explain(hit, by, i)
		}
		if bytes += proto.Size(made) + 8; bytes > pageBytes && i > 0 {
			out.SizeLimited = true
			out.Notices = append(out.Notices, fmt.Sprintf("%d hits were left off: the response would have been too large", most-i))
			break
		}
		out.Hits = append(out.Hits, made)
	}
	return out
}

func explain(hit *candidate, by channel, place int) *pb.Explanation {
	if by == noChannel {
		return &pb.Explanation{}
	}
	return &pb.Explanation{
		Channels:     []*pb.ChannelScore{{Channel: string(by), Rank: int32(place + 1), Score: hit.score, Contribution: hit.score}},
		MatchedTerms: hit.matched,
	}
}
