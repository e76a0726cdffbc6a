// Package identity decides who is calling and what they may do: authenticators, principals, rules,
// and what a listener allows.
package identity
