package pipeline

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// Stage is a set of rules about one concern.
type Stage interface {
	// Name identifies the stage in reports, waivers and metrics.
	Name() string
	// Revision changes whenever the stage might give another result for the same layer, for example
	// because its code or its configuration changed. Results for layers are remembered under the
	// revision. The function [Revision] makes a revision.
	Revision() string
}

// Revision makes a stage's revision from its version and its configuration, which must be encodable
// as JSON and contain no secrets.
func Revision(version int, configuration any) string {
	text, err := json.Marshal(configuration)
	if err != nil {
		text = []byte(err.Error())
	}
	return Fingerprint(string(rune('0'+version)), string(text))
}

// Name describes the target of a push and the client that pushes. Each [NameStage] checks it.
type Name struct {
	Upstream, Repository string
	// Tag is empty for a push by digest, and at the start of an upload, when the tag is not known yet.
	Tag string
	// Digest is the digest of the manifest; empty at the start of an upload.
	Digest digest.Digest
	// User is the name of the client that pushes; empty for an anonymous client.
	User string
	// Current returns the digest that the tag has at the upstream, or will have when all acknowledged
	// pushes have been forwarded. It returns "" if there is no such tag. Current may be nil.
	Current func(context.Context) (digest.Digest, error)
}

// NameStage checks names. CheckName is called at the start of each upload, without the tag and the
// digest, and again when the manifest arrives.
type NameStage interface {
	Stage
	CheckName(ctx context.Context, n Name) ([]Finding, error)
}

// Layer describes a layer before its walk: the one pass over its files for all stages.
type Layer struct {
	Upstream, Repository string
	// Digest is the digest that the client announced; empty if the client sends it only at the end of
	// the upload.
	Digest digest.Digest
}

// LayerStage looks into layers.
type LayerStage interface {
	Stage
	// Open returns a visitor for a layer, or nil if the stage does not need the layer. The walk uses
	// the visitor in one goroutine at a time, and always closes it.
	Open(ctx context.Context, l Layer) (Visitor, error)
}

// Visitor watches one walk over a layer. After a method has returned an error, the walk calls only
// Close, and the stage has no result for the layer.
type Visitor interface {
	// Begin is called with the next entry, and reports whether the visitor wants the content of the
	// entry.
	Begin(e *Entry) (wanted bool, err error)
	// Data is called with the content, piece by piece. p is valid during the call only.
	Data(p []byte) error
	// End is called after the content of an entry, unless the content was empty or not wanted.
	End() error
	// Close is called once, at the end of the walk. complete reports whether the walk reached the
	// layer's end without an error of the visitor. If complete is false, the result is not used.
	Close(complete bool) (LayerResult, error)
}

// Entry is one file of a layer.
type Entry struct {
	// Path is clean and relative to the root, without a leading slash: "etc/passwd". It never begins
	// with "..".
	Path string
	// Type is the type flag of archive/tar.
	Type byte
	Mode int64
	// UID and GID are the owner and the group of the file.
	UID, GID int
	Size     int64
	// Target is the target of a link, unchanged from the archive.
	Target string
	// Whole reports whether the entry is the content of a whole layer that the walk cannot read as an
	// archive. Path is then empty, and Size is -1, because the size is known only at the end.
	Whole bool
	// Capabilities reports whether the entry gives Linux capabilities to the file.
	Capabilities bool
}

// Regular reports whether the entry is a regular file, and not a directory, link or device.
func (e *Entry) Regular() bool { return e.Type == '0' || e.Type == 0 }

// LayerResult holds the findings of a stage in one layer. dray stores it under the layer's digest,
// so it must not depend on the image or repository that uses the layer.
type LayerResult struct {
	Findings []Finding `json:"findings,omitempty"`
	// Facts are data for CheckImage of the same stage, which reads them by [LayerView.Facts]. They are
	// JSON of at most MaxFacts bytes.
	Facts json.RawMessage `json:"facts,omitempty"`
	// More is the number of findings that were left out.
	More int `json:"more,omitempty"`
}

// Bounds of a stage's result for one layer. MaxFacts is in bytes.
const (
	MaxFacts         = 64 << 10
	MaxLayerFindings = 50
)

// ImageStage judges a whole image. CheckImage must return when ctx ends.
type ImageStage interface {
	Stage
	CheckImage(ctx context.Context, img *Image) ([]Finding, error)
}

// Step is a stage with the operator's settings for it.
type Step struct {
	Stage   Stage
	Mode    Mode
	OnError OnError
	// Within is the longest time that the stage may take. For a layer, it is the time spent in the
	// visitor, and 0 means 1 minute. For names or an image, it is the time until CheckName or
	// CheckImage returns, and 0 means 10 s.
	Within time.Duration
	// Key is the configuration key of Within, for error messages. It is empty if there is none.
	Key string
}

// slow returns the error for a stage that has taken longer than a time limit. scope says what
// the limit is for, such as " for one layer".
func (s Step) slow(limit time.Duration, scope string) error {
	if s.Key == "" {
		return fmt.Errorf("%w: %v%s", errSlow, limit, scope)
	}
	return fmt.Errorf("%w: %v%s; ask the operator of dray to raise %s", errSlow, limit, scope, s.Key)
}

func (s Step) imageTime() time.Duration { return cmp.Or(max(s.Within, 0), 10*time.Second) }

func (s Step) layerTime() time.Duration { return cmp.Or(max(s.Within, 0), time.Minute) }

// noVisitor stands in for the visitor when a stage does not need a layer.
type noVisitor struct{}

func (noVisitor) Begin(*Entry) (bool, error)      { return false, nil }
func (noVisitor) Data([]byte) error               { return nil }
func (noVisitor) End() error                      { return nil }
func (noVisitor) Close(bool) (LayerResult, error) { return LayerResult{}, nil }
