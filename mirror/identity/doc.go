// Package identity decides who is calling and what they may do: an [Authenticator] turns what a
// request carries into a [Principal], rules compare repositories with patterns, and a [Policy] is
// what a listener allows.
package identity
