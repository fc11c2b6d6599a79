// Package words is search by words: BM25 over lower-cased words.
package words

import (
	"math"
	"strings"
	"unicode"
)

// The parameters of BM25 in their usual values.
const (
	k1 = 1.2
	b  = 0.75
)

// Split gives the words of a text: runs of letters, marks and digits, in lower case.
func Split(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(char rune) bool {
		return !unicode.IsLetter(char) && !unicode.IsDigit(char) && !unicode.IsMark(char)
	})
}

// Document counts the words of a text.
type Document struct {
	Counts map[string]int
	Length int
}

// Count makes the document of a text.
func Count(text string) *Document {
	document := &Document{Counts: map[string]int{}}
	for _, word := range Split(text) {
		document.Counts[word]++
		document.Length++
	}
	return document
}

// Scorer holds the statistics of a collection for the terms of one query.
type Scorer struct {
	terms   []string
	weights map[string]float64
	average float64
}

// NewScorer takes the statistics over a collection: how many documents hold each term of the query, and how long they are.
func NewScorer(query string, collection []*Document) *Scorer {
	scorer := &Scorer{weights: map[string]float64{}}
	holding := map[string]int{}
	for _, term := range Split(query) {
		if _, seen := holding[term]; !seen {
			holding[term] = 0
			scorer.terms = append(scorer.terms, term)
		}
	}
	total := 0
	for _, document := range collection {
		total += document.Length
		for _, term := range scorer.terms {
			if document.Counts[term] > 0 {
				holding[term]++
			}
		}
	}
	for _, term := range scorer.terms {
		with, all := float64(holding[term]), float64(len(collection))
		scorer.weights[term] = math.Log(1 + (all-with+0.5)/(with+0.5))
	}
	if len(collection) > 0 {
		scorer.average = float64(total) / float64(len(collection))
	}
	return scorer
}

// Score is a document's BM25 and the query's terms that it holds; none means that it is no hit.
func (s *Scorer) Score(document *Document) (float64, []string) {
	var score float64
	var matched []string
	for _, term := range s.terms {
		count := float64(document.Counts[term])
		if count == 0 {
			continue
		}
		matched = append(matched, term)
		length := 1 - b + b*float64(document.Length)/s.average
		score += s.weights[term] * count * (k1 + 1) / (count + k1*length)
	}
	return score, matched
}
