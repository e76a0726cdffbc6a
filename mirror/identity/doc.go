// Package identity authenticates and authorises callers: an [Authenticator] returns the
// [Principal] of a request, rules grant actions on repositories by patterns, and a [Policy] is
// the decision of a listener.
package identity
