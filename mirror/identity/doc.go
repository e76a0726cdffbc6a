// Package identity authenticates and authorises callers. An [Authenticator] returns the
// [Principal] that sent a request. A [Rule] grants actions on the repositories that match its
// patterns. A [Policy] decides what a listener allows.
package identity
