package member

// IdentityOf is identityOf, for tests.
var IdentityOf = identityOf
