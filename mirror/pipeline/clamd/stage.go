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

// version goes up with every change of what this stage sends to clamd.
const version = 1

// Rules of the stage.
const (
	RuleMalware   = "malware"
	RuleUnscanned = "unscanned"
)

// Config says where clamd is.
type Config struct {
	// Address is "unix:/run/clamav/clamd.ctl" or "tcp:127.0.0.1:3310".
	Address string
	// Timeout of one answer. 0 means 30 s.
	Timeout time.Duration
	// MaxFileBytes is the longest file that clamd is asked about, which must not exceed its
	// StreamMaxLength. Longer ones are findings: not looked at is not clean. 0 means 100 MB, the
	// default of clamd less what it rounds.
	MaxFileBytes int64
	// Rescan is how long a layer without a finding is believed in: new signatures find old malware.
	// 0 means 24 h.
	Rescan time.Duration
}

// Stage asks clamd about each file of a layer.
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
		return nil, fmt.Errorf("clamd: the address %q is neither unix:PATH nor tcp:HOST:PORT", c.Address)
	}
	s.config.Timeout = cmp.Or(c.Timeout, 30*time.Second)
	s.config.MaxFileBytes = cmp.Or(c.MaxFileBytes, 100_000_000)
	s.config.Rescan = cmp.Or(c.Rescan, 24*time.Hour)
	return s, nil
}

// Name implements pipeline.Stage.
func (s *Stage) Name() string { return Name }

// Revision implements pipeline.Stage. It changes once in Config.Rescan, so that layers are looked
// at with new signatures.
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

// visitor looks at one layer.
type visitor struct {
	config  Config
	session *session
	path    string
	result  pipeline.LayerResult
}

// Begin implements pipeline.Visitor.
func (v *visitor) Begin(e *pipeline.Entry) (bool, error) {
	if !e.Regular() || e.Size == 0 {
		return false, nil
	}
	v.path = e.Path
	if e.Size > v.config.MaxFileBytes {
		v.tooLarge(fmt.Sprintf("a file of %d bytes, more than the %d that clamd is sent", e.Size, v.config.MaxFileBytes))
		return false, nil
	}
	return true, v.session.begin()
}

// Data implements pipeline.Visitor.
func (v *visitor) Data(p []byte) error { return v.explained(v.session.send(p)) }

// End implements pipeline.Visitor.
func (v *visitor) End() error {
	signature, err := v.session.end()
	if err != nil {
		return v.explained(err)
	}
	if signature != "" {
		v.add(pipeline.Finding{
			Rule: RuleMalware, What: "ClamAV finds " + signature, Where: pipeline.Place{Path: v.path},
			Fingerprint: pipeline.Fingerprint(Name, signature, v.path),
			Fix:         "find out which build step or base image brings the file, and build without it",
		})
	}
	return nil
}

// explained says what to set where clamd hangs up on a file.
func (v *visitor) explained(err error) error {
	if errors.Is(err, ErrTooLarge) {
		return fmt.Errorf("/%s: %w: set max_file below it", v.path, err)
	}
	return err
}

// Close implements pipeline.Visitor.
func (v *visitor) Close(bool) (pipeline.LayerResult, error) { return v.result, v.session.close() }

func (v *visitor) tooLarge(what string) {
	v.add(pipeline.Finding{
		Rule: RuleUnscanned, What: what, Where: pipeline.Place{Path: v.path},
		Fix: "raise StreamMaxLength of clamd and max_file here, or waive the file by its path",
	})
}

func (v *visitor) add(f pipeline.Finding) {
	if len(v.result.Findings) >= pipeline.MaxLayerFindings {
		v.result.More++
		return
	}
	v.result.Findings = append(v.result.Findings, f)
}
