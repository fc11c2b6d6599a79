package words

import (
	"math"
	"slices"
	"testing"
)

func TestSplit(t *testing.T) {
	if got := Split("Zoë's 2nd TEA, e.g. 茶!"); !slices.Equal(got, []string{"zoë", "s", "2nd", "tea", "e", "g", "茶"}) {
		t.Errorf("got %q", got)
	}
}

func TestBM25(t *testing.T) {
	documents := []*Document{Count("tea tea milk"), Count("coffee"), Count("tea with a long list of other words")}
	scorer := NewScorer("Tea tea unknown", documents)
	score, matched := scorer.Score(documents[0])
	// idf = ln(1 + 1.5/2.5); length 3 of an average of 4; 2·2.2 / (2 + 1.2·(0.25 + 0.75·3/4)).
	want := math.Log(1.6) * 4.4 / (2 + 1.2*(0.25+0.75*0.75))
	if math.Abs(score-want) > 1e-12 || !slices.Equal(matched, []string{"tea"}) {
		t.Errorf("got %v %q, want %v", score, matched, want)
	}
	if score, matched := scorer.Score(documents[1]); score != 0 || matched != nil {
		t.Errorf("got %v %q", score, matched)
	}
	if long, _ := scorer.Score(documents[2]); long <= 0 || long >= score {
		t.Errorf("the longer text scores %v, the shorter %v", long, score)
	}
}
