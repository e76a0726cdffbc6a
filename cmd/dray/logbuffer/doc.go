// Package logbuffer buffers lines of the access log for a short time, and keeps all lines of the
// log in order.
package logbuffer
