// Package route decides which upstream and repository a request means. It is pure: it does no I/O
// and refers to upstreams by their names.
package route
