-- One process tells what became of its permits and what it needs; the answer holds permits, places and the news.
-- All that an account's processes share is decided here, one question at a time, by Redis' own clock. Times in the
-- question and in the answer are seconds ago or seconds from now, so that no machine's clock matters.
-- The arithmetic is that of _limits/{rate,pace,pause,learning}.py; what is said there is not said again.
local STATE, AWAY, COUNTED, REFUSED = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local LEASES, HELD, WANTED, STARVING, ASKING = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local q = cjson.decode(ARGV[1])
local me, length = q.process, q.window + q.margin

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local server = 'run ' .. string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')

local s = {}
local stored = redis.call('HGETALL', STATE)
for i = 1, #stored, 2 do
    s[stored[i]] = tonumber(stored[i + 1]) or stored[i + 1]
end

local function at(time)
    return string.format('%.6f', time)
end

-- State of another server (restarted, failed over) lacks what happened last; no state at all lacks everything; a clock
-- that was set back makes nonsense of it. Then the window counts as full until all that may have left has left it.
if s.server ~= server or now < s.now - 1 then
    local empty = not s.server
    redis.call('DEL', unpack(KEYS))
    s = {server = server, birth = 'permit ' .. clock[1] .. '.' .. clock[2], grants = 0, now = now, full = 0, pace = 0, allowance = q.limit,
         ceiling = 0, step = 0, till = 0, reason = 'rate limit', episode = 0, on_trial = 0, trial = '', trial_ends = 0,
         row = 0, failures = 0, bad = 0, bad_since = 0, broken = 0}
    if not (empty and q.trust_empty and not q.known) then
        s.full = now + length + q.settling
    end
end
now = math.max(now, s.now)
s.now = now
if q.shared then -- it has sent on its own while it did not reach us, and so may others have that come back yet
    s.full = math.max(s.full, now + length + q.settling)
end
if s.ceiling == 0 or s.allowance >= q.limit then
    s.allowance, s.ceiling = q.limit, 0
end

-- The window ---------------------------------------------------------------------------------------------------------

local late = redis.call('ZRANGEBYSCORE', AWAY, '-inf', at(now), 'WITHSCORES')
for i = 1, #late, 2 do -- no answer for so long: taken to have arrived
    redis.call('ZADD', COUNTED, late[i + 1], late[i])
    redis.call('ZREM', AWAY, late[i])
end
redis.call('ZREMRANGEBYSCORE', COUNTED, '-inf', at(now - length))
redis.call('ZREMRANGEBYSCORE', REFUSED, '-inf', at(now - q.window))

local function oldest(key, rank)
    return tonumber(redis.call('ZRANGE', key, rank, rank, 'WITHSCORES')[2])
end

local function accepted()
    local arrived = redis.call('ZCARD', AWAY) + redis.call('ZCARD', COUNTED)
    return math.max(0, arrived - redis.call('ZCARD', REFUSED))
end

-- Pause, trial, breaker, learning --------------------------------------------------------------------------------------

local function begin(reason, seconds)
    if s.row > 0 then
        seconds = math.max(seconds, math.min(q.window, 2 * 2 ^ math.min(s.row, 30)))
    end
    s.row, s.episode, s.reason, s.on_trial, s.trial = s.row + 1, s.episode + 1, reason, 1, ''
    if seconds > q.breaker_seconds or (s.bad >= q.breaker_answers and now - s.bad_since >= q.breaker_seconds) then
        s.broken = 1
        seconds = math.max(seconds, q.window)
    end
    s.till = now + seconds
    s.pace = math.max(s.pace, s.till)
end

local function bad()
    if s.bad == 0 then
        s.bad_since = now
    end
    s.bad = s.bad + 1
end

local function refused(episode, retry_after)
    if episode ~= s.episode then -- it had left before this pause began
        if retry_after and s.reason == 'rate limit' then
            s.till = math.max(s.till, now + retry_after)
            s.broken = retry_after > q.breaker_seconds and 1 or s.broken
        end
        if s.ceiling > 0 then
            s.allowance = math.max(1, s.allowance - 1)
            s.ceiling = s.allowance
        end
        s.pace = math.max(s.pace, s.till)
        return
    end
    bad()
    local rest = oldest(COUNTED, 0)
    rest = rest and rest + length - now or q.window
    begin('rate limit', retry_after or math.max(2, rest))
    if q.learn then
        local fallen = math.min(accepted(), s.allowance * 0.97)
        s.allowance = math.max(1, s.allowance / 8, fallen)
        s.ceiling = s.allowance
        s.step = s.till + q.window * math.min(15, math.max(1, 55 / s.allowance))
    end
end

local function failed(episode)
    if episode ~= s.episode then
        return
    end
    bad()
    s.failures = s.failures + 1
    if s.failures >= 5 or s.on_trial == 1 then
        begin('server errors', 2)
    end
end

local function worked(episode)
    if episode ~= s.episode then
        return
    end
    if s.on_trial == 1 then
        s.pace = math.max(s.pace, now)
    end
    s.on_trial, s.broken, s.row, s.failures, s.bad = 0, 0, 0, 0, 0
end

for _, end_ in ipairs(q.settled) do
    local id, age, kind, episode, retry_after = unpack(end_)
    if retry_after == cjson.null then
        retry_after = nil
    end
    if s.trial == id then
        s.trial = ''
    end
    if kind == 'unsent' then
        if redis.call('ZREM', AWAY, id) + redis.call('ZREM', COUNTED, id) > 0 then
            s.pace = s.pace - q.window / s.allowance
        end
    else
        if kind ~= 'cut off' and redis.call('ZREM', AWAY, id) == 1 then -- what was cut off may arrive yet
            redis.call('ZADD', COUNTED, at(now - age), id)
        end
        if kind == 'worked' then
            worked(episode)
        elseif kind == 'refused' then
            if redis.call('ZADD', REFUSED, 'NX', at(now), id) == 1 then -- told again where our answer was lost
                refused(episode, retry_after)
            end
        elseif kind == 'failed' then
            failed(episode)
        end
    end
end

-- Permits --------------------------------------------------------------------------------------------------------------

if q.ask > 0 then
    redis.call('ZADD', ASKING, at(now), me)
else
    redis.call('ZREM', ASKING, me)
end
redis.call('ZREMRANGEBYSCORE', ASKING, '-inf', at(now - 2))
local askers = math.max(1, redis.call('ZCARD', ASKING))
local spacing = math.max(q.spacing, askers / q.questions) -- seconds between two questions of one asker
local horizon = 2 * spacing -- permits are given so far ahead

if q.ask > 0 and s.ceiling > 0 and now >= s.step then
    local factor = s.allowance <= s.ceiling and 1.1 or 1.5
    s.allowance = math.min(q.limit, math.max(s.allowance * factor, s.allowance + 1))
    s.step = now + math.max(10, 3 * q.window / s.allowance)
    if s.allowance >= q.limit then
        s.ceiling = 0
    end
end

if s.trial ~= '' and now >= s.trial_ends then -- no answer is as good as accepted; of a server in trouble it is not
    s.trial, s.on_trial = '', s.reason == 'server errors' and 1 or 0
end

local interval = q.window / s.allowance
local even = q.burst >= 0
local credit = even and math.max(q.catch_up, (q.burst - 1) * interval) or 0
local most = math.max(1, math.ceil(horizon / interval / askers), math.ceil((even and q.burst or s.allowance) / askers))
local want = math.min(q.ask, most, 1000)
local away, counted = redis.call('ZCARD', AWAY), redis.call('ZCARD', COUNTED)
local allowance = math.floor(s.allowance)
local granted, soonest = {}, nil
while true do
    if s.trial ~= '' then -- the trial's answer can come any moment
        soonest = now + horizon
        break
    end
    local due = math.max(now, s.till, s.full, even and s.pace or 0)
    local excess = away + counted - allowance
    if excess >= counted then -- an answer can free it any moment
        soonest = now + horizon
        break
    elseif excess >= 0 then
        due = math.max(due, oldest(COUNTED, excess) + length)
    end
    if #granted == want or due > now + horizon then
        soonest = due
        break
    end
    s.grants = s.grants + 1
    local id = s.birth .. '-' .. s.grants
    redis.call('ZADD', AWAY, at(due + q.latest), id)
    away = away + 1
    s.pace = math.max(s.pace, due - credit) + interval
    granted[#granted + 1] = {id, due - now}
    if s.on_trial == 1 then
        s.trial = id
        s.trial_ends = due + (s.reason == 'rate limit' and q.latest or q.window)
    end
end

-- Places: each process holds a number of them, all by one lease -----------------------------------------------------------

local function forget(process)
    redis.call('ZREM', LEASES, process)
    redis.call('HDEL', HELD, process)
    redis.call('HDEL', WANTED, process)
    redis.call('ZREM', STARVING, process)
end

for _, process in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', at(now))) do
    forget(process)
end

-- The level up to which all can be served, as water fills vessels: who wants less gets all, the rest share evenly.
local function level(places)
    local wants, left = redis.call('HVALS', WANTED), places
    for i = 1, #wants do
        wants[i] = tonumber(wants[i])
    end
    table.sort(wants)
    for i = 1, #wants do
        local even_share = left / (#wants - i + 1)
        if wants[i] > even_share then
            return even_share
        end
        left = left - wants[i]
    end
    return places
end

local places, wanted = 0, q.in_use + q.waiting
if wanted == 0 then
    forget(me)
else
    redis.call('ZADD', LEASES, at(now + q.lease), me)
    redis.call('HSET', WANTED, me, wanted)
    local elsewhere = -(tonumber(redis.call('HGET', HELD, me)) or 0)
    for _, held in ipairs(redis.call('HVALS', HELD)) do
        elsewhere = elsewhere + tonumber(held)
    end
    -- Those without any place go first, by the time that they have been without: fewer places than processes go round.
    local since = tonumber(redis.call('ZSCORE', STARVING, me))
    local before = redis.call('ZCOUNT', STARVING, '-inf', since and '(' .. at(since) or '+inf')
    local fair = level(q.places)
    fair = before > 0 and math.floor(fair) or math.ceil(fair)
    -- Nobody hoards places for which it has no permits: the first to come would keep all others waiting for minutes.
    local soon = most + math.ceil(2 * horizon / interval)
    places = math.max(0, math.min(wanted, fair, q.places - elsewhere, q.in_use + math.max(0, soon - q.ask)))
    redis.call('HSET', HELD, me, math.max(places, q.in_use))
    if places + q.in_use > 0 then
        redis.call('ZREM', STARVING, me)
    else
        redis.call('ZADD', STARVING, 'NX', at(now), me)
    end
end
local processes = redis.call('ZCARD', LEASES)

-- The answer -----------------------------------------------------------------------------------------------------------

local fields = {}
for name, value in pairs(s) do
    fields[#fields + 1] = name
    if type(value) == 'number' then
        value = string.format('%.6f', value)
    end
    fields[#fields + 1] = value
end
redis.call('HSET', STATE, unpack(fields))
for i = 2, #KEYS do -- the state stays: without it the next start would have to wait for a window
    redis.call('PEXPIRE', KEYS[i], math.ceil(2000 * (length + q.latest + q.lease)))
end

return cjson.encode({
    permits = granted,
    again = math.max(#granted < q.ask and spacing or 0, soonest - now - spacing),
    places = places,
    places_again = math.max(q.spacing, processes / q.questions),
    used = s.full > now and allowance or away + counted,
    allowance = allowance,
    learned = s.ceiling > 0,
    paused = math.max(0, s.till - now),
    pauses = s.episode,
    reason = s.reason,
    broken = s.broken == 1,
    on_trial = s.on_trial == 1,
    full = math.max(0, s.full - now),
})
