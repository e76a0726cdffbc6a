// Package webhook has an image judged by a service of the operator's.
//
// The service gets the JSON view of the image, as CEL rules see it, in one POST, and answers
// whether it is allowed and why not. Two forms are spoken: one modelled after the admission reviews
// of Kubernetes, and that of the data API of Open Policy Agent.
package webhook

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"dray/mirror/pipeline"
)

// Name of the stage; several webhooks have names of their own below it.
const Name = "webhook"

// version goes up with every change of what is sent.
const version = 1

// maxAnswer is the longest answer that is read, in bytes.
const maxAnswer = 1 << 20

// Form is how the service is spoken to.
type Form string

// The forms.
const (
	// Review sends {"apiVersion","kind","request":{"uid","image"}} and gets
	// {"response":{"uid","allowed","findings"}}.
	Review Form = "review"
	// OPA sends {"input": image} and gets {"result": {"allowed","findings"}}.
	OPA Form = "opa"
)

// Config says where the service is.
type Config struct {
	// Name tells several webhooks apart. It may be empty.
	Name string
	// URL to post to.
	URL string
	// Form of the conversation. Empty is Review.
	Form Form
	// Timeout of one question. 0 means 5 s.
	Timeout time.Duration
	// Secret signs requests; empty signs nothing. It is in no revision and in no error.
	Secret []byte `json:"-"`
	// Failures in a row after which the service is not asked for Pause. 0 means 5.
	Failures int
	// Pause of a service that fails. 0 means 30 s.
	Pause time.Duration
	// Transport sends the requests; nil is http.DefaultTransport.
	Transport http.RoundTripper `json:"-"`
}

// ErrPaused says that the service was not asked because it failed several times in a row a moment
// ago.
var ErrPaused = errors.New("not asked, because it just failed several times in a row")

// Stage asks the service about each image.
type Stage struct {
	config Config
	client *http.Client

	mu       sync.Mutex // guards what follows
	failures int
	until    time.Time // of the pause
}

var _ pipeline.ImageStage = (*Stage)(nil)

// New makes a stage. It asks nobody.
func New(c Config) (*Stage, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("webhook: %q is not the URL of a service", c.URL)
	}
	c.Form = cmp.Or(c.Form, Review)
	if c.Form != Review && c.Form != OPA {
		return nil, fmt.Errorf("webhook: there is no form %q", c.Form)
	}
	c.Timeout = cmp.Or(c.Timeout, 5*time.Second)
	c.Failures = cmp.Or(c.Failures, 5)
	c.Pause = cmp.Or(c.Pause, 30*time.Second)
	return &Stage{config: c, client: &http.Client{
		Transport: c.Transport,
		// A signed request is for the service that was named, and for no other.
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

// Revision implements pipeline.Stage.
func (s *Stage) Revision() string { return pipeline.Revision(version, s.config) }

// review is what is sent in the form Review.
type review struct {
	APIVersion string  `json:"apiVersion"`
	Kind       string  `json:"kind"`
	Request    request `json:"request"`
}

type request struct {
	UID   string          `json:"uid"`
	Image *pipeline.Image `json:"image"`
}

// answer holds both forms.
type answer struct {
	Response *judgement `json:"response"`
	Result   *judgement `json:"result"`
}

// judgement is what the service says.
type judgement struct {
	UID      string                     `json:"uid"`
	Allowed  *bool                      `json:"allowed"`
	Message  string                     `json:"message"`
	Findings []pipeline.ExternalFinding `json:"findings"`
}

// CheckImage implements pipeline.ImageStage.
func (s *Stage) CheckImage(ctx context.Context, img *pipeline.Image) ([]pipeline.Finding, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	j, err := s.ask(ctx, img)
	s.leave(ctx, err)
	if err != nil {
		return nil, err
	}
	return j.found(), nil
}

// enter refuses while the service is left alone. The first question after that is a probe.
func (s *Stage) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures < s.config.Failures {
		return nil
	}
	now := time.Now()
	if now.Before(s.until) {
		return fmt.Errorf("%s: %w", s.Name(), ErrPaused)
	}
	s.until = now.Add(s.config.Pause) // others wait for what the probe says
	return nil
}

func (s *Stage) leave(ctx context.Context, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.failures = 0
	case ctx.Err() != nil: // nobody waited for the end
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
	req, err := http.NewRequestWithContext(within, http.MethodPost, s.config.URL, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name(), err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	Sign(req.Header, s.config.Secret, body)
	resp, err := s.client.Do(req)
	if err != nil {
		if told, ok := errors.AsType[*url.Error](err); ok {
			err = told.Err // the address may hold a credential, and this is shown to who pushes
		}
		return nil, fmt.Errorf("%s: %w", s.Name(), err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", s.Name(), err)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: the service answers with status %d", s.Name(), resp.StatusCode)
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

// Headers of a signed request.
const (
	// HeaderTime is when it was signed, in seconds since 1970.
	HeaderTime = "X-Dray-Time"
	// HeaderSignature is "sha256=" and the HMAC-SHA-256, in hexadecimal, of the time, a dot and the
	// body.
	HeaderSignature = "X-Dray-Signature"
)

// Sign puts the signature of a body into the headers that go with it. An empty secret signs
// nothing.
func Sign(h http.Header, secret, body []byte) {
	if len(secret) == 0 {
		return
	}
	now := strconv.FormatInt(time.Now().Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(now + "."))
	mac.Write(body)
	h.Set(HeaderTime, now)
	h.Set(HeaderSignature, "sha256="+hex.EncodeToString(mac.Sum(nil)))
}

// decode holds the answer to its form: one that does not say whether the image is allowed has not
// judged it. OPA answers {} where its policy is undefined.
func (s *Stage) decode(uid string, text []byte) (*judgement, error) {
	var a answer
	if err := json.Unmarshal(text, &a); err != nil {
		return nil, fmt.Errorf("%s: the answer is not understood: %w", s.Name(), err)
	}
	j := a.Response
	if s.config.Form == OPA {
		j = a.Result
	}
	switch {
	case j == nil || j.Allowed == nil:
		return nil, fmt.Errorf("%s: the answer does not say whether the image is allowed", s.Name())
	case s.config.Form == Review && j.UID != uid:
		return nil, fmt.Errorf("%s: the answer is to another question", s.Name())
	}
	return j, nil
}

// RuleRefused is the rule where the service names none.
const RuleRefused = "refused"

// found makes findings of a refusal. What an allowing service remarks is not held against the
// image.
func (j *judgement) found() []pipeline.Finding {
	if *j.Allowed {
		return nil
	}
	out := pipeline.FindingsOf(j.Findings, "the service gave no reason")
	if len(out) == 0 {
		out = append(out, pipeline.Finding{Rule: RuleRefused, What: cmp.Or(j.Message, "the service gave no reason")})
	}
	return out
}
