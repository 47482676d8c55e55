-- Removes a dead letter; returns its queue, body and priority, or nothing.

local function dead_take(id)
    local record = call('HGET', P .. 'dead', id)
    if not record then
        return nil
    end
    local queue, body, priority = cmsgpack.unpack(record)
    call('HDEL', P .. 'dead', id)
    call('ZREM', P .. 'dead:ids', id)
    call('ZREM', P .. 'dead:ids:' .. queue, id)
    return queue, body, priority
end
