package ecrtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var zeroTime time.Time

const (
	amzAlgorithm = "AWS4-HMAC-SHA256"
	amzTime      = "20060102T150405Z"
)

// signURL returns a signed URL for GET, in the form that AWS documents for
// get-download-url-for-layer. Each call returns another URL. The access key in the URL contains the
// current epoch. ExpireURLs and ExpireSigner begin a new epoch, and make the URLs of all earlier
// epochs invalid.
func (s *Server) signURL(base string, g *registry, repo *repository, l layer) string {
	s.mu.Lock()
	now, epoch := s.nowLocked().UTC(), s.urlEpoch
	s.mu.Unlock()
	key := fmt.Sprintf("ASIA%06d%010X", epoch, randomBytes(5))
	date := now.Format(amzTime)
	q := url.Values{}
	q.Set("X-Amz-Algorithm", amzAlgorithm)
	q.Set("X-Amz-Date", date)
	q.Set("X-Amz-SignedHeaders", "host")
	q.Set("X-Amz-Expires", strconv.Itoa(int(s.opts.URLLife.Seconds())))
	q.Set("X-Amz-Credential", key+"/"+date[:8]+"/"+g.region+"/s3/aws4_request")
	path := "/" + repo.id[:4] + "-" + g.account + "-" + repo.id + "/" + l.object
	host, under := base, ""
	if u, err := url.Parse(base); err == nil {
		host, under = u.Host, u.Path
	}
	q.Set("X-Amz-Signature", s.signature(http.MethodGet, host, under+path, q))
	return base + path + "?" + q.Encode()
}

// signature returns the SigV4 signature of method, path, query and host. The secret key for an
// access key is a MAC of the access key under s.signKey.
func (s *Server) signature(method, host, path string, q url.Values) string {
	signed := url.Values{}
	for k, v := range q {
		if k != "X-Amz-Signature" {
			signed[k] = v
		}
	}
	canonical := strings.Join([]string{method, path, strings.ReplaceAll(signed.Encode(), "+", "%20"),
		"host:" + host + "\n", "host", "UNSIGNED-PAYLOAD"}, "\n")
	sum := sha256.Sum256([]byte(canonical))
	credential := strings.Split(q.Get("X-Amz-Credential"), "/")
	scope := strings.Join(credential[1:], "/")
	toSign := strings.Join([]string{amzAlgorithm, q.Get("X-Amz-Date"), scope, hex.EncodeToString(sum[:])}, "\n")
	key := []byte("AWS4" + hex.EncodeToString(mac(s.signKey, credential[0])))
	for _, part := range credential[1:] {
		key = mac(key, part)
	}
	return hex.EncodeToString(mac(key, toSign))
}

func mac(key []byte, data string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(data))
	return h.Sum(nil)
}

// ExpireURLs expires all URLs signed so far. The object store then answers requests for these URLs
// with 403 AccessDenied.
func (s *Server) ExpireURLs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.urlEpoch++
	s.urlExpired = s.urlEpoch
}

// ExpireSigner ends the session that signed all URLs so far. The object store then answers requests
// for these URLs with 400 ExpiredToken.
func (s *Server) ExpireSigner() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.urlEpoch++
	s.sessionEnd = s.urlEpoch
}

// s3Error is an error document of S3.
type s3Error struct {
	XMLName   xml.Name `xml:"Error"`
	Code      string   `xml:"Code"`
	Message   string   `xml:"Message"`
	RequestID string   `xml:"RequestId"`
}

func writeObjectError(w http.ResponseWriter, e *wireError) {
	if e.Hangup {
		panic(http.ErrAbortHandler) // closes the connection without an answer
	}
	body, _ := xml.Marshal(s3Error{Code: e.Code, Message: e.Message, RequestID: w.Header().Get("X-Amz-Request-Id")})
	for k, v := range e.Header {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(e.Status)
	_, _ = w.Write(append([]byte(xml.Header), body...)) // fails only if the client is gone
}

// Objects returns the object store of the signed URLs. It treats signed URLs as S3 does.
func (s *Server) Objects() http.Handler {
	kind := func(r *http.Request) Kind { return readKinds(KindObjectGet, KindObjectHead).of(r.Method) }
	return s.observe(surface{"objects", kind, writeObjectError, "SlowDown", "InternalError"}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Amz-Request-Id", strings.ToUpper(hex.EncodeToString(randomBytes(8))))
		w.Header().Set("Server", "AmazonS3")
		if err := s.serveObject(w, r); err != nil {
			writeObjectError(w, s.wire(err))
		}
	})
}

func (s *Server) serveObject(w http.ResponseWriter, r *http.Request) error {
	if r.Header.Get("Authorization") != "" && s.opts.Quirks.ObjectsRefuseAuth {
		return refuse(http.StatusBadRequest, "InvalidArgument", "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, "+
			"Signature query string parameter or the Authorization header should be specified")
	}
	err := s.checkSignature(r)
	if err != nil {
		return err
	}
	l, ok := s.findObject(r.URL.Path)
	if !ok {
		return refuse(http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if l.object == l.digest.Encoded() { // a manifest
		w.Header().Set("Content-Type", l.media)
	}
	w.Header().Set("ETag", `"`+l.digest.Encoded()[:32]+`"`)
	if r, err = s.objectRange(r, l.size); err != nil {
		return err
	}
	return s.serveFile(w, r, l)
}

var oneRange = regexp.MustCompile(`^bytes=(\d*)-(\d*)$`)

// objectRange checks the Range of a request as S3 does. S3 refuses a range that contains no byte of
// the object. Switches.MultiRangeStatus says whether S3 refuses several ranges or ignores the
// header. If S3 would ignore the header, objectRange returns the request without the header.
func (s *Server) objectRange(r *http.Request, size int64) (*http.Request, error) {
	want := r.Header.Get("Range")
	unsatisfiable := refuse(http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The requested range is not satisfiable")
	if strings.Contains(want, ",") && s.Switches().MultiRangeStatus != http.StatusOK {
		return r, unsatisfiable
	}
	m := oneRange.FindStringSubmatch(want)
	if m == nil || m[1]+m[2] == "" {
		r = r.Clone(r.Context())
		r.Header.Del("Range")
		return r, nil
	}
	first, err := strconv.ParseInt(m[1], 10, 64)
	if m[1] != "" && (err != nil || first >= size) || m[1] == "" && strings.Trim(m[2], "0") == "" {
		return r, unsatisfiable
	}
	return r, nil
}

// checkSignature checks the form of a signed URL, its signature for the request's method, the
// signer's session, and the expiry.
func (s *Server) checkSignature(r *http.Request) error {
	q := r.URL.Query()
	date, err := time.Parse(amzTime, q.Get("X-Amz-Date"))
	life, err2 := strconv.Atoi(q.Get("X-Amz-Expires"))
	credential := strings.Split(q.Get("X-Amz-Credential"), "/")
	if q.Get("X-Amz-Algorithm") != amzAlgorithm || err != nil || err2 != nil || len(credential) != 5 || len(credential[0]) != 20 {
		return refuse(http.StatusForbidden, "AccessDenied", "Access Denied")
	}
	want := s.signature(r.Method, r.Host, r.URL.EscapedPath(), q)
	if !hmac.Equal([]byte(want), []byte(q.Get("X-Amz-Signature"))) {
		return refuse(http.StatusForbidden, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your key and signing method.")
	}
	epoch, err := strconv.Atoi(credential[0][4:10])
	if err != nil {
		return refuse(http.StatusForbidden, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
	}
	s.mu.Lock()
	now, expired, over := s.nowLocked(), epoch < s.urlExpired, epoch < s.sessionEnd
	s.mu.Unlock()
	if over {
		return refuse(http.StatusBadRequest, "ExpiredToken", "The provided token has expired.")
	}
	if expired || now.After(date.Add(time.Duration(life)*time.Second)) {
		return refuse(http.StatusForbidden, "AccessDenied", "Request has expired")
	}
	return nil
}

// findObject finds an object by its name, which is the last part of a path. It need not check the
// other parts, because the signature covers them.
func (s *Server) findObject(path string) (layer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.objects[path[strings.LastIndex(path, "/")+1:]]
	if !ok {
		return layer{}, false
	}
	return *l, true
}
