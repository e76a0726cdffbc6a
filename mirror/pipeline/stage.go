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

// Revision makes a stage's revision from its version and its configuration, which must be
// encodable as JSON and hold no secrets.
func Revision(version int, configuration any) string {
	text, err := json.Marshal(configuration)
	if err != nil {
		text = []byte(err.Error())
	}
	return Fingerprint(string(rune('0'+version)), string(text))
}

// Name says where a push goes and who pushes. Name stages decide by it.
type Name struct {
	Upstream, Repository string
	// Tag is empty for a push by digest, and at the start of an upload, when the tag is not known yet.
	Tag string
	// Digest is the digest of the manifest; empty at the start of an upload.
	Digest digest.Digest
	// User is the caller that pushes; empty for an anonymous one.
	User string
	// Current returns the digest that the tag has at the upstream, or will have when all acknowledged
	// pushes have been forwarded. It returns "" if there is no such tag. Current may be nil.
	Current func(context.Context) (digest.Digest, error)
}

// NameStage decides by names. It is called at the start of each upload, with the repository
// alone, and again when the manifest arrives.
type NameStage interface {
	Stage
	CheckName(ctx context.Context, n Name) ([]Finding, error)
}

// Layer is what is known about a layer before it is walked.
type Layer struct {
	Upstream, Repository string
	// Digest is the digest that the client announces; empty if the client announces it only at the
	// end.
	Digest digest.Digest
}

// LayerStage looks into layers.
type LayerStage interface {
	Stage
	// Open begins a layer. The visitor is nil if the stage does not need this layer. Any other visitor
	// is used by one goroutine at a time, and is always closed.
	Open(ctx context.Context, l Layer) (Visitor, error)
}

// Visitor watches one walk over a layer. An error of any method ends the visitor's part in the
// walk, and the stage then has no result for the layer.
type Visitor interface {
	// Begin is called with the next entry, and reports whether the visitor wants its content.
	Begin(e *Entry) (wanted bool, err error)
	// Data is called with the content, piece by piece. p is valid during the call only.
	Data(p []byte) error
	// End ends the content of an entry that the visitor wanted.
	End() error
	// Close ends the layer. complete reports whether the walk reached the layer's end without an error
	// of the visitor. If complete is false, the result is not used.
	Close(complete bool) (LayerResult, error)
}

// Entry is one file of a layer.
type Entry struct {
	// Path is clean and relative to the root, without a leading slash: "etc/passwd". It never
	// begins with "..".
	Path string
	// Type is the type flag of archive/tar.
	Type byte
	Mode int64
	// UID and GID are those of the owner.
	UID, GID int
	Size     int64
	// Target is the target of a link, as the archive has it.
	Target string
	// Whole reports whether the entry is a whole layer, because the walk cannot read the layer as
	// an archive. Such an entry has no path. Its size is -1, because the size is not known before
	// the end.
	Whole bool
	// Capabilities reports whether the entry gives Linux capabilities to the file.
	Capabilities bool
}

// Regular reports whether the entry is a regular file: no directory, link or device.
func (e *Entry) Regular() bool { return e.Type == '0' || e.Type == 0 }

// LayerResult holds the findings of a stage in one layer. It is remembered by the layer's
// digest, so it must not depend on the image or repository that uses the layer.
type LayerResult struct {
	Findings []Finding `json:"findings,omitempty"`
	// Facts are what CheckImage of the same stage gets from [LayerView.Facts], as JSON of at most
	// MaxFacts bytes.
	Facts json.RawMessage `json:"facts,omitempty"`
	// More is the number of findings that were left out.
	More int `json:"more,omitempty"`
}

// Bounds of the result for one layer.
const (
	MaxFacts         = 64 << 10
	MaxLayerFindings = 50
)

// ImageStage judges a whole image. It must return when ctx ends.
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

// slow returns the error for a stage that has taken longer than a time limit. The parameter of says
// what the limit is for, such as " for one layer".
func (s Step) slow(limit time.Duration, of string) error {
	if s.Key == "" {
		return fmt.Errorf("%w: %v%s", errSlow, limit, of)
	}
	return fmt.Errorf("%w: %v%s; ask the operator of dray to raise %s", errSlow, limit, of, s.Key)
}

func (s Step) imageTime() time.Duration { return cmp.Or(max(s.Within, 0), 10*time.Second) }

func (s Step) layerTime() time.Duration { return cmp.Or(max(s.Within, 0), time.Minute) }

// noVisitor is the visitor of a stage that needs none for a layer.
type noVisitor struct{}

func (noVisitor) Begin(*Entry) (bool, error)      { return false, nil }
func (noVisitor) Data([]byte) error               { return nil }
func (noVisitor) End() error                      { return nil }
func (noVisitor) Close(bool) (LayerResult, error) { return LayerResult{}, nil }
