-- Takes a lease that is free, its own, or of the failed generation. KEYS[1]: the lease.
-- ARGV: member, its address, the failed generation, milliseconds until the lease expires.
-- Returns holder, address and generation. A generation is the time of Redis
-- in microseconds, so it also grows if Redis has lost its data.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local l = redis.call('HMGET', KEYS[1], 'm', 'a', 'g')
if l[1] and l[1] ~= ARGV[1] and l[3] ~= ARGV[3] then return l end
local g = string.format('%.0f', math.max(now, (tonumber(l[3] or 0) or 0) + 1, tonumber(ARGV[3]) + 1))
redis.call('HSET', KEYS[1], 'm', ARGV[1], 'a', ARGV[2], 'g', g)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {ARGV[1], ARGV[2], g}
