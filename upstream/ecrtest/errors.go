package ecrtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// wireError is an error answer of the registry.
type wireError struct {
	Status  int
	Code    string
	Message string
	Header  http.Header
	Text    bool   // the body is the plain text in the field Message, not JSON
	Hangup  bool   // the connection is closed without an answer
	End     string // appended to the JSON
}

func (e *wireError) Error() string {
	if e.Hangup {
		return "connection closed"
	}
	return fmt.Sprintf("%d %s: %s", e.Status, e.Code, e.Message)
}

func refuse(status int, code, format string, args ...any) *wireError {
	return &wireError{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

func hangup() *wireError { return &wireError{Hangup: true} }

type errorBody struct {
	Errors []errorEntry `json:"errors"`
}

type errorEntry struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// writeRegistryError writes an error in the form of the distribution specification.
func writeRegistryError(w http.ResponseWriter, e *wireError) {
	if e.Hangup {
		panic(http.ErrAbortHandler) // closes the connection without an answer
	}
	body := []byte(e.Message)
	contentType := "text/plain; charset=utf-8"
	if !e.Text {
		body, _ = json.Marshal(errorBody{[]errorEntry{{e.Code, e.Message}}})
		body = append(body, e.End...)
		contentType = "application/json; charset=utf-8"
	}
	h := w.Header()
	for k, v := range e.Header {
		h[k] = v
	}
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(e.Status)
	_, _ = w.Write(body) // fails only if the client is gone
}

func (g *registry) nameUnknown(repo string) *wireError {
	return refuse(http.StatusNotFound, "NAME_UNKNOWN", "The repository with name '%s' does not exist in the registry with id '%s'", repo, g.account)
}

func manifestUnknown() *wireError {
	return refuse(http.StatusNotFound, "MANIFEST_UNKNOWN", "Requested image not found")
}

func (g *registry) blobUnknown(repo string, d digest.Digest) *wireError {
	return refuse(http.StatusNotFound, "BLOB_UNKNOWN", "The layer with digest '%s' does not exist within the repository with name '%s' in the registry with id '%s'", d, repo, g.account)
}

func (g *registry) uploadUnknown(repo, id string) *wireError {
	return refuse(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "The upload with id '%s' does not exist within the repository with name '%s' in the registry with id '%s'", id, repo, g.account)
}

func rangeInvalid(got, want int64) *wireError {
	return refuse(http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "First byte of the layer part is %d instead of %d", got, want)
}

func invalidParameter(status int, name, constraint string) *wireError {
	return refuse(status, "UNSUPPORTED", "Invalid parameter at '%s' failed to satisfy constraint: '%s'", name, constraint)
}

func digestInvalid(s string) *wireError {
	return refuse(http.StatusBadRequest, "DIGEST_INVALID", "Invalid digest '%s'", s)
}

func nowhere() *wireError {
	return &wireError{Status: http.StatusNotFound, Message: "404 page not found\n", Text: true}
}

func joinDigests(ds []digest.Digest) string {
	s := make([]string, len(ds))
	for i, d := range ds {
		s[i] = d.String()
	}
	return "[" + strings.Join(s, ", ") + "]"
}
