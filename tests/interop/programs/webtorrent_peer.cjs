// A WebTorrent client as a program of its own: one torrent until SIGTERM.
//
//   NODE_PATH=.../node_modules node webtorrent_peer.cjs SOURCE DIRECTORY PORT TRANSPORT [HOST:PORT...]
//
// Prints one JSON object a line, {"event": "complete"} once everything is there. A directory that
// already holds the data is verified and then seeded.
'use strict'

const WebTorrent = require('webtorrent')

const [source, directory, port, transport, ...peers] = process.argv.slice(2)

function say (event, fields) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + '\n')
}

if (transport === 'utp' && !WebTorrent.UTP_SUPPORT) {
  say('error', { message: 'the native module of uTP does not load' })
  process.exit(1)
}

const client = new WebTorrent({
  torrentPort: Number(port),
  dht: false,
  lsd: false,
  utPex: false,
  natUpnp: false,
  natPmp: false,
  // With utp on, it dials uTP first and TCP when that fails.
  utp: transport === 'utp',
  secure: transport === 'mse'
})

function fail (error) {
  say('error', { message: String(error && error.message) })
  process.exit(1)
}

client.on('error', fail)
client.on('listening', () => say('listening', { port: client.torrentPort }))

const torrent = client.add(source, { path: directory })
torrent.on('infoHash', () => peers.forEach((peer) => torrent.addPeer(peer)))
torrent.on('warning', (error) => say('warning', { message: error.message }))
torrent.on('wire', (wire, address) => say('wire', { type: wire.type, address }))
torrent.on('done', () => say('complete'))

process.on('SIGTERM', () => client.destroy(() => process.exit(0)))
