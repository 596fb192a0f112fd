//! The connections of an endpoint by place, what is left of those that close, and the first IDs that clients have chosen.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use lb_io::udp::TableId;
use slab::Slab;

use crate::closing::Closing;
use crate::connection::{Application, Connection};
use crate::connection_id::{ConnectionIds, Meaning, OwnId};

/// A connection, as its tasks share it.
pub(crate) type Shared<A> = Rc<RefCell<Connection<A>>>;

/// What has a place in the table.
enum Occupant<A: Application> {
    Open(Shared<A>),
    /// A connection that was closed here, and the ID that its client has chosen.
    Closing(Closing, Box<[u8]>),
}

/// What an ID leads to.
pub(crate) enum Found<'t, A: Application> {
    Open(Shared<A>),
    Closing(&'t mut Closing),
}

/// The connections of one endpoint.
pub(crate) struct Table<A: Application> {
    places: Slab<(u32, Occupant<A>)>,
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

    /// Bytes of the IDs that are made here.
    pub(crate) fn id_length(&self) -> usize {
        self.ids.length()
    }

    /// The connection that an ID leads to.
    pub(crate) fn find(&mut self, id: &[u8]) -> Option<Found<'_, A>> {
        let place = self.named_by(id).or_else(|| self.chosen.get(id).copied())?;
        match &mut self.places.get_mut(place)?.1 {
            Occupant::Open(connection) => Some(Found::Open(Rc::clone(connection))),
            Occupant::Closing(closing, _) => Some(Found::Closing(closing)),
        }
    }

    /// The place that an ID of the gateway's own names, if what has the ID is still there.
    fn named_by(&self, id: &[u8]) -> Option<usize> {
        let Meaning { table, place, generation, .. } = self.ids.read(id)?;
        let place = usize::try_from(place).ok()?;
        let is_there = self.places.get(place).is_some_and(|(own, _)| *own == generation);
        (is_there && table == self.own).then_some(place)
    }

    /// The table of the connection that an ID names, if the gateway has made the ID.
    pub(crate) fn table_of(&self, id: &[u8]) -> Option<TableId> {
        self.ids.read(id).map(|meaning| meaning.table)
    }

    pub(crate) fn at(&self, place: usize) -> Option<Shared<A>> {
        match self.places.get(place)? {
            (_, Occupant::Open(connection)) => Some(Rc::clone(connection)),
            (_, Occupant::Closing(..)) => None,
        }
    }

    pub(crate) fn get(&self, place: usize, generation: u32) -> Option<Shared<A>> {
        let (own, _) = self.places.get(place)?;
        if *own == generation { self.at(place) } else { None }
    }

    /// What is left of a connection that was closed here.
    pub(crate) fn closing(&mut self, place: usize, generation: u32) -> Option<&mut Closing> {
        match self.places.get_mut(place)? {
            (own, Occupant::Closing(closing, _)) if *own == generation => Some(closing),
            _ => None,
        }
    }

    /// All connections that are not closed.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Shared<A>> {
        self.places.iter().filter_map(|(_, (_, occupant))| match occupant {
            Occupant::Open(connection) => Some(connection),
            Occupant::Closing(..) => None,
        })
    }

    /// Where the next connection will be, its generation, and its first ID.
    pub(crate) fn next(&mut self) -> Option<(usize, u32, OwnId)> {
        let (place, generation) = (self.places.vacant_key(), self.next_generation);
        self.next_generation = generation.wrapping_add(1);
        let id = self.id(place, generation, 0)?;
        Some((place, generation, id))
    }

    /// The ID of a connection with this number.
    pub(crate) fn id(&self, place: usize, generation: u32, number: u32) -> Option<OwnId> {
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
        let place = self.places.insert((generation, Occupant::Open(Rc::clone(&shared))));
        if !chosen.is_empty() {
            self.chosen.insert(chosen.into(), place);
        }
        shared
    }

    /// Takes a connection out, and has what is left of it take its place.
    pub(crate) fn close(&mut self, connection: &mut Connection<A>, closing: Closing) {
        if self.get(connection.place, connection.generation).is_some()
            && let Some((_, occupant)) = self.places.get_mut(connection.place)
        {
            *occupant = Occupant::Closing(closing, std::mem::take(&mut connection.chosen));
        }
    }

    /// Takes a connection out.
    pub(crate) fn remove(&mut self, connection: &Connection<A>) {
        if self.get(connection.place, connection.generation).is_some() {
            self.forget(connection.place, &connection.chosen);
        }
    }

    /// Takes out what is left of a connection.
    pub(crate) fn remove_closing(&mut self, place: usize) {
        if let Some((_, Occupant::Closing(_, chosen))) = self.places.get_mut(place) {
            let chosen = std::mem::take(chosen);
            self.forget(place, &chosen);
        }
    }

    fn forget(&mut self, place: usize, chosen: &[u8]) {
        self.places.remove(place);
        if self.chosen.get(chosen) == Some(&place) {
            self.chosen.remove(chosen);
        }
    }
}
