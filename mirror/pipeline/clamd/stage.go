package clamd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"dray/mirror/pipeline"
)

// Name of the stage.
const Name = "clamd"

// version is increased with every change of the data that is sent to clamd.
const version = 2

// Rules of the stage.
const (
	RuleMalware   = "malware"
	RuleUnscanned = "unscanned"
)

// Config configures the connection to clamd, and the files that are sent.
type Config struct {
	// Address is "unix:/run/clamav/clamd.ctl" or "tcp:127.0.0.1:3310".
	Address string
	// Timeout bounds each write, and the wait for each reply. 0 means 30 s.
	Timeout time.Duration
	// MaxFileBytes is the maximum length of a file that is sent to clamd. It must not exceed clamd's
	// StreamMaxLength. Longer files are findings, because they are not scanned. 0 means 100 MB, a
	// little less than clamd's default.
	MaxFileBytes int64
	// Rescan is the longest time for which the result for a layer is used. After that time, the layer
	// is scanned again, because new signatures find old malware. 0 means 24 h.
	Rescan time.Duration
}

// Stage sends each file of a layer to clamd. It sends a layer that is no archive as one file.
type Stage struct {
	config           Config
	network, address string
	now              func() time.Time
}

var _ pipeline.LayerStage = (*Stage)(nil)

// New makes a stage. It does not connect.
func New(c Config) (*Stage, error) {
	s := &Stage{config: c, now: time.Now}
	var ok bool
	if s.network, s.address, ok = strings.Cut(c.Address, ":"); !ok || s.network != "unix" && s.network != "tcp" || s.address == "" {
		return nil, fmt.Errorf("clamd: the address %q does not have the form unix:PATH or tcp:HOST:PORT", c.Address)
	}
	s.config.Timeout = cmp.Or(c.Timeout, 30*time.Second)
	s.config.MaxFileBytes = cmp.Or(c.MaxFileBytes, 100_000_000)
	s.config.Rescan = cmp.Or(c.Rescan, 24*time.Hour)
	return s, nil
}

// Name implements pipeline.Stage.
func (s *Stage) Name() string { return Name }

// Revision implements pipeline.Stage. It changes once in each period of Config.Rescan, so that
// layers are scanned with new signatures.
func (s *Stage) Revision() string {
	return pipeline.Revision(version, s.config) + strconv.FormatInt(s.now().UnixNano()/int64(s.config.Rescan), 36)
}

// Open implements pipeline.LayerStage.
func (s *Stage) Open(ctx context.Context, _ pipeline.Layer) (pipeline.Visitor, error) {
	session, err := dial(ctx, s.network, s.address, s.config.Timeout)
	if err != nil {
		return nil, err
	}
	return &visitor{config: s.config, session: session}, nil
}

// visitor scans one layer.
type visitor struct {
	config  Config
	session *session
	path    string
	left    int64 // the number of bytes of the file that may still be sent; -1 if the file has more than MaxFileBytes
	result  pipeline.LayerResult
}

// Begin implements pipeline.Visitor.
func (v *visitor) Begin(e *pipeline.Entry) (bool, error) {
	if !e.Regular() || e.Size == 0 {
		return false, nil
	}
	v.path, v.left = e.Path, v.config.MaxFileBytes
	if e.Size > v.config.MaxFileBytes {
		v.tooLarge(fmt.Sprintf("the file has %d bytes and was not scanned, because max_file is %d", e.Size, v.config.MaxFileBytes))
		return false, nil
	}
	return true, v.session.begin()
}

// Data implements pipeline.Visitor. Begin has skipped files that are too long. Begin does not know
// the length of a layer that is no archive, so Data sends only the first MaxFileBytes of such a
// layer.
func (v *visitor) Data(p []byte) error {
	switch {
	case v.left < 0:
		return nil
	case int64(len(p)) > v.left:
		p, v.left = p[:v.left], -1
		v.tooLarge(fmt.Sprintf("the rest of the layer was not scanned, because it has more than %d bytes, which is max_file", v.config.MaxFileBytes))
	default:
		v.left -= int64(len(p))
	}
	return v.explain(v.session.send(p))
}

// End implements pipeline.Visitor.
func (v *visitor) End() error {
	signature, err := v.session.end()
	if err != nil {
		return v.explain(err)
	}
	if signature != "" {
		v.add(pipeline.Finding{
			Rule: RuleMalware, What: "ClamAV found " + signature, Where: pipeline.Place{Path: v.path},
			Fingerprint: pipeline.Fingerprint(Name, signature, v.path),
			Fix:         "find the build step or base image that adds the file, and build without it",
		})
	}
	return nil
}

// explain completes the error about a file that is too large for clamd: it adds the path, and says
// which setting to lower.
func (v *visitor) explain(err error) error {
	if errors.Is(err, ErrTooLarge) {
		return fmt.Errorf("%s: %w; set max_file to a lower value", cmp.Or(v.path, "a layer that is no archive"), err)
	}
	return err
}

// Close implements pipeline.Visitor.
func (v *visitor) Close(bool) (pipeline.LayerResult, error) { return v.result, v.session.close() }

func (v *visitor) tooLarge(what string) {
	v.add(pipeline.Finding{
		Rule: RuleUnscanned, What: what, Where: pipeline.Place{Path: v.path},
		Fix: "raise StreamMaxLength of clamd and max_file of the check, or waive the finding by its fingerprint",
	})
}

func (v *visitor) add(f pipeline.Finding) {
	if len(v.result.Findings) >= pipeline.MaxLayerFindings {
		v.result.More++
		return
	}
	v.result.Findings = append(v.result.Findings, f)
}
