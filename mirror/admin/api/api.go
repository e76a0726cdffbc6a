package api

import (
	"fmt"
	"net/http"
)

// Prefix is where the API lives. Its number changes when a client of the older
// one would misread what it gets; members may be added to answers at any time.
const Prefix = "/api/v1/"

// Code says what kind of failure an [Error] is.
type Code string

// The codes.
const (
	CodeInvalid     Code = "invalid"     // the request is not understood; 400
	CodeForbidden   Code = "forbidden"   // it came from another site, or could have; 403
	CodeNotFound    Code = "not_found"   // nothing fits what was named; 404
	CodeConflict    Code = "conflict"    // what is under way forbids it; 409
	CodeUnavailable Code = "unavailable" // a part of dray that it needs does not work; 503
	CodeInternal    Code = "internal"    // everything else; 500
)

// Status is the HTTP status of answers with this code.
func (c Code) Status() int {
	switch c {
	case CodeInvalid:
		return http.StatusBadRequest
	case CodeForbidden:
		return http.StatusForbidden
	case CodeNotFound:
		return http.StatusNotFound
	case CodeConflict:
		return http.StatusConflict
	case CodeUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// Error is a failure as the API tells it. Endpoints return it, or wrap it, where the
// kind of failure matters; any other error has the code CodeInternal.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Error is the message.
func (e *Error) Error() string { return e.Message }

// Errorf makes an Error of a code.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Failure is the body of every answer of the API that is not a success.
type Failure struct {
	Error *Error `json:"error"`
}
