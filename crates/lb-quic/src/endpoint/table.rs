//! The connections of an endpoint by place, and the first IDs that clients have chosen.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use lb_io::udp::TableId;
use slab::Slab;

use crate::connection::{Application, Connection};
use crate::connection_id::{ConnectionIds, LENGTH, Meaning};

/// A connection, as its tasks share it.
pub(crate) type Shared<A> = Rc<RefCell<Connection<A>>>;

/// The connections of one endpoint.
pub(crate) struct Table<A: Application> {
    places: Slab<(u32, Shared<A>)>,
    /// From the IDs that clients have chosen for the first packets to the places of their connections.
    chosen: HashMap<Box<[u8]>, usize>,
    ids: Rc<ConnectionIds>,
    own: TableId,
    /// Makes the generations of a place differ.
    next_generation: u32,
}

impl<A: Application> Table<A> {
    /// The empty table `own`. `seed` makes its IDs differ from those of earlier tables.
    pub(crate) fn new(ids: Rc<ConnectionIds>, own: TableId, seed: u32) -> Self {
        let (places, chosen) = (Slab::new(), HashMap::new());
        Self { places, chosen, ids, own, next_generation: seed }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The connection that an ID leads to.
    pub(crate) fn find(&self, id: &[u8]) -> Option<Shared<A>> {
        if id.len() == LENGTH
            && let Some(meaning) = self.ids.read(id)
            && meaning.table == self.own
            && let Some(connection) = self.get(usize::try_from(meaning.place).ok()?, meaning.generation)
        {
            return Some(connection);
        }
        self.at(*self.chosen.get(id)?)
    }

    /// The table of the connection that an ID names, if the gateway has made the ID.
    pub(crate) fn table_of(&self, id: &[u8]) -> Option<TableId> {
        self.ids.read(id).filter(|_| id.len() == LENGTH).map(|meaning| meaning.table)
    }

    pub(crate) fn at(&self, place: usize) -> Option<Shared<A>> {
        self.places.get(place).map(|(_, connection)| Rc::clone(connection))
    }

    pub(crate) fn get(&self, place: usize, generation: u32) -> Option<Shared<A>> {
        let (own, connection) = self.places.get(place)?;
        (*own == generation).then(|| Rc::clone(connection))
    }

    /// All connections.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Shared<A>> {
        self.places.iter().map(|(_, (_, connection))| connection)
    }

    /// Where the next connection will be, its generation, and its first ID.
    pub(crate) fn next(&mut self) -> Option<(usize, u32, [u8; LENGTH])> {
        let (place, generation) = (self.places.vacant_key(), self.next_generation);
        self.next_generation = generation.wrapping_add(1);
        let id = self.id(place, generation, 0)?;
        Some((place, generation, id))
    }

    /// The ID of a connection with this number.
    pub(crate) fn id(&self, place: usize, generation: u32, number: u32) -> Option<[u8; LENGTH]> {
        let table = self.own;
        let place = u32::try_from(place).ok()?;
        self.ids.make(Meaning { table, place, generation, number })
    }

    /// Puts a connection where [`Self::next`] has said. `chosen` is the ID that its client has sent its first packet to.
    pub(crate) fn insert(
        &mut self,
        generation: u32,
        mut connection: Connection<A>,
        chosen: &[u8],
    ) -> Shared<A> {
        connection.chosen = chosen.into();
        let shared = Rc::new(RefCell::new(connection));
        let place = self.places.insert((generation, Rc::clone(&shared)));
        if !chosen.is_empty() {
            self.chosen.insert(chosen.into(), place);
        }
        shared
    }

    /// Takes a connection out.
    pub(crate) fn remove(&mut self, connection: &Connection<A>) {
        let Connection { place, generation, chosen, .. } = connection;
        if self.get(*place, *generation).is_some() {
            self.places.remove(*place);
        }
        if self.chosen.get(chosen) == Some(place) {
            self.chosen.remove(chosen);
        }
    }
}
