// Package s3test is a stand-in for S3 in memory, for tests. It counts requests, and checks neither
// signatures nor checksums.
package s3test

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server is a store with buckets, which exist as soon as they are used. Requests have the name of
// the bucket in their path.
type Server struct {
	*httptest.Server

	mu        sync.Mutex
	objects   map[string]object // by path, such as /bucket/key
	uploads   map[string]map[int][]byte
	documents map[string][]byte // settings of buckets, by bucket and name, such as "bucket lifecycle"
	counts    map[string]int
	fault     func(http.ResponseWriter, *http.Request) bool
}

type object struct {
	bytes   []byte
	written time.Time
}

// New starts a server, which ends with the test.
func New(t testing.TB) *Server {
	s := &Server{objects: map[string]object{}, uploads: map[string]map[int][]byte{}, documents: map[string][]byte{}, counts: map[string]int{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// Fault makes the server pass every request to handler first. The handler returns true if it has
// answered the request. If handler is nil, the server answers every request itself.
func (s *Server) Fault(handler func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = handler
}

// Counts returns the number of requests since the last call, by kind: get, head, put, create, part,
// complete or abort. For a setting of a bucket, the kind is the method and the name of the setting,
// such as "PUT lifecycle".
func (s *Server) Counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := s.counts
	s.counts = map[string]int{}
	return counts
}

// Keys returns the paths of all objects, sorted.
func (s *Server) Keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.objects))
}

// Get returns the bytes of an object, nil if there is none.
func (s *Server) Get(path string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[path].bytes
}

// Set puts an object into the store, with the time at which it was written.
func (s *Server) Set(path string, p []byte, written time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[path] = object{p, written}
}

// Setting returns a setting of a bucket, such as its lifecycle.
func (s *Server) Setting(bucket, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.documents[bucket+" "+name])
}

// SetSetting replaces a setting of a bucket.
func (s *Server) SetSetting(bucket, name, document string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.documents[bucket+" "+name] = []byte(document)
}

// Delete removes all objects whose path contains substr.
func (s *Server) Delete(substr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.objects, func(path string, _ object) bool { return strings.Contains(path, substr) })
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.counts[kind(r)]++
	fault := s.fault
	s.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has left
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch k := kind(r); k {
	case "get", "head":
		s.read(w, r)
	case "put":
		if s.mayWrite(w, r) {
			s.objects[r.URL.Path] = object{body, time.Now()}
			w.Header().Set("Etag", tag(body))
		}
	case "create":
		id := strconv.Itoa(len(s.uploads) + 1)
		s.uploads[id] = map[int][]byte{}
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", id)
	case "part":
		number, _ := strconv.Atoi(r.URL.Query().Get("partNumber"))
		s.uploads[r.URL.Query().Get("uploadId")][number] = body
		w.Header().Set("Etag", tag(body))
	case "complete":
		s.complete(w, r, body)
	case "abort":
		delete(s.uploads, r.URL.Query().Get("uploadId"))
		w.WriteHeader(http.StatusNoContent)
	default:
		s.setting(w, r, body)
	}
}

func kind(r *http.Request) string {
	q := r.URL.Query()
	switch {
	case strings.Count(strings.Trim(r.URL.Path, "/"), "/") == 0:
		for name := range q {
			if name != "x-id" {
				return r.Method + " " + name
			}
		}
		return r.Method
	case q.Has("uploads"):
		return "create"
	case q.Has("uploadId") && r.Method == http.MethodPost:
		return "complete"
	case q.Has("uploadId") && r.Method == http.MethodDelete:
		return "abort"
	case q.Has("uploadId"):
		return "part"
	}
	return strings.ToLower(r.Method)
}

func tag(p []byte) string {
	sum := md5.Sum(p)
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

// Refuse answers with an error of S3.
func Refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%[1]s</Message></Error>", code)
}

func (s *Server) read(w http.ResponseWriter, r *http.Request) {
	o, ok := s.objects[r.URL.Path]
	if !ok {
		Refuse(w, http.StatusNotFound, "NoSuchKey")
		return
	}
	w.Header().Set("Etag", tag(o.bytes))
	http.ServeContent(w, r, "", o.written, bytes.NewReader(o.bytes))
}

// mayWrite reports whether If-None-Match allows the write. If the header forbids the write,
// mayWrite answers the request.
func (s *Server) mayWrite(w http.ResponseWriter, r *http.Request) bool {
	if _, exists := s.objects[r.URL.Path]; exists && r.Header.Get("If-None-Match") == "*" {
		Refuse(w, http.StatusPreconditionFailed, "PreconditionFailed")
		return false
	}
	return true
}

func (s *Server) complete(w http.ResponseWriter, r *http.Request, body []byte) {
	var list struct {
		Parts []struct {
			Number int    `xml:"PartNumber"`
			Tag    string `xml:"ETag"`
		} `xml:"Part"`
	}
	parts := s.uploads[r.URL.Query().Get("uploadId")]
	if err := xml.Unmarshal(body, &list); err != nil || len(list.Parts) == 0 || len(list.Parts) != len(parts) {
		Refuse(w, http.StatusBadRequest, "InvalidPart")
		return
	}
	if !s.mayWrite(w, r) {
		return
	}
	var whole []byte
	for _, part := range list.Parts {
		if tag(parts[part.Number]) != part.Tag {
			Refuse(w, http.StatusBadRequest, "InvalidPart")
			return
		}
		whole = append(whole, parts[part.Number]...)
	}
	delete(s.uploads, r.URL.Query().Get("uploadId"))
	s.objects[r.URL.Path] = object{whole, time.Now()}
	fmt.Fprintf(w, "<CompleteMultipartUploadResult><ETag>%s</ETag></CompleteMultipartUploadResult>", tag(whole))
}

// setting stores or returns a setting of a bucket, such as its lifecycle.
func (s *Server) setting(w http.ResponseWriter, r *http.Request, body []byte) {
	name := strings.Trim(r.URL.Path, "/") + strings.TrimPrefix(kind(r), r.Method)
	switch r.Method {
	case http.MethodHead: // every bucket exists
	case http.MethodPut:
		s.documents[name] = body
	case http.MethodGet:
		if s.documents[name] == nil {
			code := "NoSuchLifecycleConfiguration"
			if strings.Contains(name, "publicAccessBlock") {
				code = "NoSuchPublicAccessBlockConfiguration"
			}
			Refuse(w, http.StatusNotFound, code)
			return
		}
		_, _ = w.Write(s.documents[name])
	default:
		Refuse(w, http.StatusNotImplemented, "NotImplemented")
	}
}
