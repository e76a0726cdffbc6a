package api

import (
	"fmt"
	"net/http"
)

// Prefix is the path of the API. The number in it changes when older clients would misread the
// answers. It stays the same when fields are added to the answers.
const Prefix = "/api/v1/"

// Code is the kind of an [Error].
type Code string

// The codes.
const (
	CodeInvalid      Code = "invalid"      // the request is invalid; 400
	CodeUnauthorized Code = "unauthorized" // the credentials are missing or wrong; 401
	CodeForbidden    Code = "forbidden"    // the caller may not do this, or the request could have come from another site; 403
	CodeNotFound     Code = "not_found"    // there is nothing with the given name; 404
	CodeConflict     Code = "conflict"     // something prevents the request now, such as a pin or an operation under way; 409
	CodeUnavailable  Code = "unavailable"  // a part of dray that the request needs does not work; 503
	CodeInternal     Code = "internal"     // everything else; 500
)

// Status returns the HTTP status of answers with this code.
func (c Code) Status() int {
	switch c {
	case CodeInvalid:
		return http.StatusBadRequest
	case CodeUnauthorized:
		return http.StatusUnauthorized
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

// Error is an error of the API. An endpoint returns or wraps an Error if clients need its code. Any
// other error gets the code CodeInternal.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Errorf returns an Error with a code.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Failure is the body of every answer of an endpoint that is not a success.
type Failure struct {
	Error *Error `json:"error"`
}
