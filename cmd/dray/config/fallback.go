package config

import "slices"

// Fallback names another upstream, which dray asks during a pull if the upstream that lists this
// fallback does not answer. An upstream counts as not answering if it cannot be reached, answers
// 408, 429 or a status of 500 or above, refuses dray's credentials, or failed in one of these ways
// a moment ago. An entry can be just the name. dray asks for the repository of the same name, below
// the `repository_prefix` of the fallback, with the fallback's credentials. The rights of a client
// depend on the upstream that the client names, even if a fallback answers. dray gets nothing from
// a fallback whose `repositories` exclude the repository. During a pull, dray asks an upstream with
// fallbacks once, for 8 s at most, and a second time only if no fallback has the content. If the
// upstream does not answer for a tag, but answered less than `tags.stale` ago, dray serves that
// answer and asks no fallback. Pushes never go to a fallback. docs/operating.md has examples.
type Fallback struct {
	// The name of the other upstream. It must not have fallbacks, and its kind must not be `local`.
	Name string `yaml:"upstream"`
	// With `failure`, dray asks the fallback if an upstream that it asked before does not answer. With
	// `not_found`, dray also asks the fallback if no upstream that it asked before has the content.
	// Default: `failure`.
	On FallbackOn `yaml:"on,omitempty"`
}

// setText sets the name. The decoder calls it for an entry that is just a text, without keys.
func (f *Fallback) setText(text string) { f.Name = text }

// FallbackOn says when dray asks a fallback.
type FallbackOn string

// The reasons to ask a fallback.
const (
	FallbackOnFailure  FallbackOn = "failure"
	FallbackOnNotFound FallbackOn = "not_found" // on a failure, and for content that is not found
)

// fallsBack reports whether an upstream is one of the fallbacks.
func fallsBack(on []Fallback, name string) bool {
	return slices.ContainsFunc(on, func(f Fallback) bool { return f.Name == name })
}
