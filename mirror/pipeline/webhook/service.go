package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Service is an HTTP service of the operator, to which JSON documents are posted. Its functions are
// called for each request, because they may read files that change. The values that they return may
// be secret, so no error contains them.
type Service struct {
	// URL returns the URL to which documents are posted. [CheckURL] must return nil for it.
	URL func() string
	// Header returns the headers that the operator configured. It may be nil.
	Header func() http.Header
	// Secret returns the key that signs the request. If Secret is nil or returns no key, the request
	// is not signed.
	Secret func() []byte
}

// errURL does not contain the URL, which may contain a token.
var errURL = errors.New("is not an http or https URL")

// CheckURL returns an error if a text is not an http or https URL with a host.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errURL
	}
	return nil
}

// Host returns the host of the URL, or "" if the URL is not valid.
func (s Service) Host() string {
	u, err := url.Parse(s.URL())
	if err != nil {
		return ""
	}
	return u.Host
}

// Do posts a document with the client c, and returns the answer.
func (s Service) Do(ctx context.Context, c *http.Client, mediaType string, document []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL(), bytes.NewReader(document))
	if err != nil {
		return nil, errURL
	}
	if s.Header != nil {
		maps.Copy(req.Header, s.Header())
	}
	req.Header.Set("Content-Type", mediaType)
	req.Header.Set("Accept", "application/json")
	s.sign(req.Header, document)
	resp, err := c.Do(req)
	if told, ok := errors.AsType[*url.Error](err); ok {
		err = told.Err // without the URL
	}
	return resp, err
}

// Headers of a signed request.
const (
	// HeaderTime is the time of the signature, in seconds since 1970.
	HeaderTime = "X-Dray-Time"
	// HeaderSignature is "sha256=" followed by an HMAC-SHA-256 in hexadecimal. The HMAC covers the
	// time, a dot and the body.
	HeaderSignature = "X-Dray-Signature"
)

// sign adds the signature of a body to the headers h, if there is a key.
func (s Service) sign(h http.Header, body []byte) {
	if s.Secret == nil {
		return
	}
	key := s.Secret()
	if len(key) == 0 {
		return
	}
	now := strconv.FormatInt(time.Now().Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(now + "."))
	mac.Write(body)
	h.Set(HeaderTime, now)
	h.Set(HeaderSignature, "sha256="+hex.EncodeToString(mac.Sum(nil)))
}
