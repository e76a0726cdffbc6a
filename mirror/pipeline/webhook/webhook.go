// Package webhook asks a service of the operator to judge an image.
//
// The service gets the image as a JSON document, [pipeline.Image], in one POST request. CEL rules
// see the same document. The answer says whether the image is allowed. If it is not, the answer may
// give reasons. Requests and answers have one of two forms. [Review] is modelled after the
// admission reviews of Kubernetes. [OPA] is the form of Open Policy Agent's data API.
package webhook

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"dray/mirror/pipeline"
)

// Name of the stage. A webhook with a name of its own is called "webhook/NAME".
const Name = "webhook"

// version is increased with every change of the request.
const version = 2

// maxAnswer is the maximum length of an answer in bytes.
const maxAnswer = 1 << 20

// Form is the form of requests and answers.
type Form string

// The forms.
const (
	// Review sends {"apiVersion","kind","request":{"uid","image"}} and gets
	// {"response":{"uid","allowed","message","findings"}}.
	Review Form = "review"
	// OPA sends {"input": image} and gets {"result": {"allowed","message","findings"}}.
	OPA Form = "opa"
)

// Config configures the service and the requests to it.
type Config struct {
	// Name distinguishes several webhooks. It may be empty.
	Name string
	// Service is the service to which images are posted.
	Service `json:"-"`
	// Form is the form of requests and answers. Empty means Review.
	Form Form
	// Timeout bounds the time of one request. 0 means 5 s.
	Timeout time.Duration
	// Failures is the number of failures in a row after which the stage sends no requests for the
	// time Pause. 0 means 5.
	Failures int
	// Pause is the time after which one request probes a failing service. 0 means 30 s.
	Pause time.Duration
	// Transport sends the requests; nil is http.DefaultTransport.
	Transport http.RoundTripper `json:"-"`
}

// ErrPaused means that no request was sent, because the service has just failed several times in a
// row.
var ErrPaused = errors.New("not called, because it failed several times in a row")

// Stage sends each image to the service.
type Stage struct {
	config Config
	client *http.Client

	mu       sync.Mutex // guards the fields below
	failures int
	until    time.Time // end of the pause
}

var _ pipeline.ImageStage = (*Stage)(nil)

// New makes a stage. It does not connect.
func New(c Config) (*Stage, error) {
	c.Form = cmp.Or(c.Form, Review)
	if c.Form != Review && c.Form != OPA {
		return nil, fmt.Errorf("webhook: unknown form %q", c.Form)
	}
	c.Timeout = cmp.Or(c.Timeout, 5*time.Second)
	c.Failures = cmp.Or(c.Failures, 5)
	c.Pause = cmp.Or(c.Pause, 30*time.Second)
	return &Stage{config: c, client: &http.Client{
		Transport: c.Transport,
		// No redirect is followed: a request, its headers and its signature are only for the
		// configured service.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Name implements pipeline.Stage.
func (s *Stage) Name() string {
	if s.config.Name == "" {
		return Name
	}
	return Name + "/" + s.config.Name
}

// Revision implements pipeline.Stage. It depends on the host in the service's URL, but not on the
// whole URL. Reports show the revision, and a hash of the whole URL would help attackers to guess a
// token in the URL.
func (s *Stage) Revision() string {
	return pipeline.Revision(version, []any{s.config, s.config.Host()})
}

// review is the request in the form Review.
type review struct {
	APIVersion string  `json:"apiVersion"`
	Kind       string  `json:"kind"`
	Request    request `json:"request"`
}

type request struct {
	UID   string          `json:"uid"`
	Image *pipeline.Image `json:"image"`
}

// answer is an answer of either form: Review sets Response, and OPA sets Result.
type answer struct {
	Response *judgement `json:"response"`
	Result   *judgement `json:"result"`
}

// judgement is the service's verdict.
type judgement struct {
	UID      string                     `json:"uid"`
	Allowed  *bool                      `json:"allowed"`
	Message  string                     `json:"message"`
	Findings []pipeline.ExternalFinding `json:"findings"`
}

// CheckImage implements pipeline.ImageStage.
func (s *Stage) CheckImage(ctx context.Context, img *pipeline.Image) ([]pipeline.Finding, error) {
	if err := s.admit(); err != nil {
		return nil, err
	}
	j, err := s.ask(ctx, img)
	s.record(ctx, err)
	if err != nil {
		return nil, err
	}
	return j.findings(), nil
}

// admit returns ErrPaused during a pause. After a pause, it admits one request, which probes the
// service.
func (s *Stage) admit() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures < s.config.Failures {
		return nil
	}
	now := time.Now()
	if now.Before(s.until) {
		return fmt.Errorf("%s: %w", s.Name(), ErrPaused)
	}
	// Other requests get ErrPaused until the probe succeeds or the new pause ends.
	s.until = now.Add(s.config.Pause)
	return nil
}

// record counts a failure of the service, or resets the count after a success.
func (s *Stage) record(ctx context.Context, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.failures = 0
	case ctx.Err() != nil: // the caller gave up, which is no failure of the service
	default:
		if s.failures++; s.failures >= s.config.Failures {
			s.until = time.Now().Add(s.config.Pause)
		}
	}
}

func (s *Stage) ask(ctx context.Context, img *pipeline.Image) (*judgement, error) {
	uid := rand.Text()
	body, err := s.encode(uid, img)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name(), err)
	}
	within, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	resp, err := s.config.Do(within, s.client, "application/json", body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name(), err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", s.Name(), err)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: the service answered with status %d", s.Name(), resp.StatusCode)
	case len(text) > maxAnswer:
		return nil, fmt.Errorf("%s: the answer is longer than %d bytes", s.Name(), maxAnswer)
	}
	return s.decode(uid, text)
}

func (s *Stage) encode(uid string, img *pipeline.Image) ([]byte, error) {
	if s.config.Form == OPA {
		return json.Marshal(map[string]*pipeline.Image{"input": img})
	}
	return json.Marshal(review{APIVersion: "dray/v1", Kind: "ImageReview", Request: request{uid, img}})
}

// decode parses an answer. An answer that does not say whether the image is allowed is an error.
// OPA sends such an answer, {}, if its policy is undefined.
func (s *Stage) decode(uid string, text []byte) (*judgement, error) {
	var a answer
	if err := json.Unmarshal(text, &a); err != nil {
		return nil, fmt.Errorf("%s: cannot decode the answer: %w", s.Name(), err)
	}
	j := a.Response
	if s.config.Form == OPA {
		j = a.Result
	}
	switch {
	case j == nil || j.Allowed == nil:
		return nil, fmt.Errorf("%s: the answer has no decision", s.Name())
	case s.config.Form == Review && j.UID != uid:
		return nil, fmt.Errorf("%s: the answer is for another request", s.Name())
	}
	return j, nil
}

// RuleRefused is the rule of a refusal for which the service names no rule.
const RuleRefused = "refused"

// findings returns at least one finding if the image is not allowed. If it is allowed, the result
// is nil, whatever findings the service sent.
func (j *judgement) findings() []pipeline.Finding {
	if *j.Allowed {
		return nil
	}
	out := pipeline.FindingsOf(j.Findings, "the service gave no reason")
	if len(out) == 0 {
		out = append(out, pipeline.Finding{Rule: RuleRefused, What: cmp.Or(j.Message, "the service gave no reason")})
	}
	return out
}
