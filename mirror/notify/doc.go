// Package notify sends events about pushes, verdicts and deletions to services of the operator.
// It signs requests as the stage pipeline/webhook does.
//
// Events have the form of the distribution registry (its documentation, "Notifications"), so that
// services for that registry understand them. They have additional members for data for which the
// form has none. Each endpoint has a bounded backlog in memory. It gets events in order. Each event
// is sent until the endpoint accepts it or refuses it for good.
package notify
