-- KEYS[1]: hash of the members. Returns the descriptions of the members that are alive.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local alive = {}
for _, v in ipairs(redis.call('HVALS', KEYS[1])) do
	local till, text = string.match(v, '^(%d+) (.*)$')
	if till and tonumber(till) >= now then table.insert(alive, text) end
end
return alive
